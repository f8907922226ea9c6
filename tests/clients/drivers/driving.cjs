// The protocol of a driver in JavaScript: see driving.py. AGENTS is the folder that npm has installed into.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");
const { createRequire } = require("node:module");

const need = createRequire(path.join(process.env.AGENTS, "none.cjs"));

const TOOL_SCHEMA = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

// An error as its user sees it. What an error of the AI SDK has given up on is the last one in it.
function raised(error) {
  const last = error.lastError ?? error;
  const status = last.status ?? last.statusCode ?? null;
  return { error: error.constructor.name === "Error" ? error.name : error.constructor.name, status, text: String(error.message) };
}

function drive(name, ask) {
  const known = path.join(process.env.AGENTS, "node_modules", name, "package.json");
  const tell = (line) => process.stdout.write(JSON.stringify(line) + "\n");
  console.log = console.info = console.error;
  tell({ client: `${name} ${JSON.parse(fs.readFileSync(known)).version}` });
  readline.createInterface({ input: process.stdin }).on("line", async (line) => {
    const asked = JSON.parse(line);
    try {
      tell({ id: asked.id, ...(await ask(asked)) });
    } catch (error) {
      tell({ id: asked.id, ...raised(error) });
    }
  });
}

module.exports = {
  need,
  drive,
  raised,
  TOOL_SCHEMA,
  KEY: "sk-test",
  MODEL: "demo",
  PROMPT: "What is the weather in Paris?",
  ENOUGH_TOKENS: 64,
  LONGEST_MS: 60000,
  TOOL: "weather",
  TOOL_DESCRIPTION: "The weather in a city.",
  WEATHER: "Sunny.",
};
