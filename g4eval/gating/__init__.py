"""The regression gate: is a candidate as good as the baseline on these samples?"""
