// The AI SDK of Vercel with its OpenAI provider (Responses, as by default) or its Anthropic one.
"use strict";
const d = require("./driving.cjs");
const { generateText, streamText, tool, jsonSchema, stepCountIs } = d.need("ai");
const dialect = process.argv[2];

function model(asked) {
  const options = { apiKey: d.KEY, headers: asked.headers, baseURL: `${asked.base}/v1` };
  if (dialect === "anthropic") return d.need("@ai-sdk/anthropic").createAnthropic(options)(d.MODEL);
  return d.need("@ai-sdk/openai").createOpenAI(options)(d.MODEL);
}

async function ask(asked) {
  const options = {
    model: model(asked),
    prompt: d.PROMPT,
    maxOutputTokens: d.ENOUGH_TOKENS,
    abortSignal: AbortSignal.timeout(d.LONGEST_MS),
    ...(asked.patient ? {} : { maxRetries: 0 }),
  };
  if (asked.ask === "streamed") {
    const pieces = [];
    for await (const piece of streamText(options).textStream) pieces.push(piece);
    return { answer: pieces.join(""), pieces: pieces.length };
  }
  if (asked.ask === "plain") return { answer: (await generateText(options)).text };
  let called = null;
  const weather = tool({
    description: d.TOOL_DESCRIPTION,
    inputSchema: jsonSchema(d.TOOL_SCHEMA),
    execute: async (given) => {
      called = given;
      return d.WEATHER;
    },
  });
  const { text } = await generateText({ ...options, tools: { weather }, stopWhen: stepCountIs(2) });
  return { answer: text, tool: called };
}

d.drive("ai", ask);
