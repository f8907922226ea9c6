// The `@anthropic-ai/sdk` package: messages.
"use strict";
const d = require("./driving.cjs");
const Anthropic = d.need("@anthropic-ai/sdk");

async function ask(asked) {
  const client = new Anthropic({
    baseURL: asked.base,
    apiKey: d.KEY,
    defaultHeaders: asked.headers,
    timeout: d.LONGEST_MS,
    ...(asked.patient ? {} : { maxRetries: 0 }),
  });
  const messages = [{ role: "user", content: d.PROMPT }];
  const options = { model: d.MODEL, max_tokens: d.ENOUGH_TOKENS, messages };
  if (asked.ask === "streamed") {
    const pieces = [];
    await client.messages
      .stream(options)
      .on("text", (text) => pieces.push(text))
      .finalMessage();
    return { answer: pieces.join(""), pieces: pieces.length };
  }
  if (asked.ask === "plain") return { answer: (await client.messages.create(options)).content[0].text };
  options.tools = [{ name: d.TOOL, description: d.TOOL_DESCRIPTION, input_schema: d.TOOL_SCHEMA }];
  const message = await client.messages.create(options);
  const [call] = message.content;
  const result = { type: "tool_result", tool_use_id: call.id, content: d.WEATHER };
  messages.push({ role: "assistant", content: message.content }, { role: "user", content: [result] });
  return { answer: (await client.messages.create(options)).content[0].text, tool: call.input };
}

d.drive("@anthropic-ai/sdk", ask);
