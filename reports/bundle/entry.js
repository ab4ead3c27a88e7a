// What the report's charts use of Observable Plot; esbuild drops the rest.
export { axisX, dot, gridX, link, plot, rectX, ruleX, text, tickX, tip, pointer } from "@observablehq/plot";
