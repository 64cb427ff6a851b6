// Says how Node read each request: one JSON answer for each, on one line of bytes.
const server = require("http").createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const body = Buffer.concat(parts).toString("latin1");
    const seen = { method: request.method, path: request.url, body };
    const text = JSON.stringify(seen);
    console.log(text);
    response.writeHead(200, { "content-type": "text/plain", "content-length": text.length });
    response.end(text);
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
