// Command program is the Go side of the chaos runs: a server that keeps state in its sessions, and clients in
// session mode. `../README.md` has what both do.
//
//	program serve PORT POD MARKS UNKNOWN
//	program stdio POD MARKS SESSION
//	program clients URL HOST
//
// It is built twice, with the MCP go-sdk of go.mod and of go_180.mod.
package main

import (
	"encoding/json"
	"log"
	"os"
	"sync"
	"time"
)

func main() {
	switch os.Args[1] {
	case "serve":
		serve(os.Args[2], os.Args[3], os.Args[4])
	case "stdio":
		pipe(os.Args[2], os.Args[3], os.Args[4])
	case "clients":
		follow(os.Args[2], os.Args[3])
	default:
		log.Fatalf("there is no %s", os.Args[1])
	}
}

type object map[string]any

var writing sync.Mutex

// line writes one object whole.
func line(file *os.File, what object) {
	what["at"] = float64(time.Now().UnixMicro()) / 1e6
	text, err := json.Marshal(what)
	if err != nil {
		log.Fatal(err)
	}
	writing.Lock()
	defer writing.Unlock()
	if _, err := file.Write(append(text, '\n')); err != nil {
		log.Fatal(err)
	}
}
