"""Reports: estimates to tables and pages."""
