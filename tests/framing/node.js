// How Node reads each request, one line of JSON for each whole message; prints its port first.
const server = require("http").createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const body = Buffer.concat(parts).toString("utf8");
    const mine = Object.entries(request.headers).filter(([name]) => name.startsWith("x-test-"));
    const seen = { method: request.method, path: request.url, headers: Object.fromEntries(mine), body };
    console.log(JSON.stringify(seen));
    response.writeHead(200, { "content-length": 2 });
    response.end("{}");
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
