// The `openai` package of npm: chat completions.
"use strict";
const d = require("./driving.cjs");
const OpenAI = d.need("openai");

async function ask(asked) {
  const client = new OpenAI({
    baseURL: `${asked.base}/v1`,
    apiKey: d.KEY,
    defaultHeaders: asked.headers,
    timeout: d.LONGEST_MS,
    ...(asked.patient ? {} : { maxRetries: 0 }),
  });
  const messages = [{ role: "user", content: d.PROMPT }];
  const options = { model: d.MODEL, max_tokens: d.ENOUGH_TOKENS, messages };
  if (asked.ask === "streamed") {
    const pieces = [];
    for await (const chunk of await client.chat.completions.create({ ...options, stream: true })) {
      if (chunk.choices[0].delta.content) pieces.push(chunk.choices[0].delta.content);
    }
    return { answer: pieces.join(""), pieces: pieces.length };
  }
  if (asked.ask === "plain") {
    return { answer: (await client.chat.completions.create(options)).choices[0].message.content };
  }
  const offer = { name: d.TOOL, description: d.TOOL_DESCRIPTION, parameters: d.TOOL_SCHEMA };
  options.tools = [{ type: "function", function: offer }];
  const { message } = (await client.chat.completions.create(options)).choices[0];
  const [call] = message.tool_calls;
  messages.push(message, { role: "tool", tool_call_id: call.id, content: d.WEATHER });
  const last = await client.chat.completions.create(options);
  return { answer: last.choices[0].message.content, tool: JSON.parse(call.function.arguments) };
}

d.drive("openai", ask);
