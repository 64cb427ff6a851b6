// How Node reads each request, one line of JSON for each whole message, and how it ends responses: those below
// `/respond/` are what the path names. Prints its port first.
const STATUS = { "not-found": 404, "no-content": 204, "not-modified": 304 };

function respond(kind, method, response) {
  const headers = { "x-kind": kind, "x-twice": ["1", "2"] };
  if (["length", "not-found", "closing", "cut-length"].includes(kind)) headers["content-length"] = 5;
  if (kind === "empty") headers["content-length"] = 0;
  if (kind === "closing" || kind === "until-close") headers["connection"] = "close";
  // Node names no trailers where there is no body.
  const trailers = kind === "trailers" && method !== "HEAD";
  if (trailers) headers["trailer"] = "x-sum";
  if (kind === "until-close") response.removeHeader("transfer-encoding");
  if (kind === "hints") {
    response.writeEarlyHints({ link: "</a>; rel=preload" });
    response.writeProcessing();
  }
  response.writeHead(STATUS[kind] ?? 200, headers);
  if (kind === "large") for (let n = 0; n < 20; n++) response.write("0123456789abcdef".repeat(1000));
  if (["empty", "no-content", "not-modified", "large"].includes(kind)) return response.end();
  if (kind.startsWith("cut-")) return response.write("hel", () => response.destroy());
  response.write("hel");
  if (trailers) response.addTrailers({ "x-sum": "7" });
  response.end("lo");
}

const server = require("http").createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    if (request.url.startsWith("/respond/")) {
      return respond(request.url.slice("/respond/".length), request.method, response);
    }
    const body = Buffer.concat(parts).toString("utf8");
    const mine = Object.entries(request.headers).filter(([name]) => name.startsWith("x-test-"));
    const seen = { method: request.method, path: request.url, headers: Object.fromEntries(mine), body };
    console.log(JSON.stringify(seen));
    response.writeHead(200, { "content-length": 2 });
    response.end("{}");
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
