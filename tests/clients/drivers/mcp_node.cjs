// The `@modelcontextprotocol/sdk` package: one session, a call of a tool, and a list after it.
"use strict";
const d = require("./driving.cjs");
const { Client } = d.need("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = d.need("@modelcontextprotocol/sdk/client/streamableHttp.js");

async function ask(asked) {
  const headers = { authorization: `Bearer ${d.KEY}`, ...asked.headers };
  const client = new Client({ name: "asker", version: "1" });
  await client.connect(new StreamableHTTPClientTransport(new URL(asked.base), { requestInit: { headers } }));
  try {
    await client.listTools();
    const result = await client.callTool({ name: "search", arguments: { query: "room" } });
    await client.listTools(); // a session that a refusal has killed does not answer this
    return { answer: result.content[0].text };
  } finally {
    await client.close();
  }
}

d.drive("@modelcontextprotocol/sdk", ask);
