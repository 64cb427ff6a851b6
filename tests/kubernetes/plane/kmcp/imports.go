//go:build imports

// Package kmcp names the program that build.py builds, so that `go.sum` holds what it needs.
package kmcp

import _ "github.com/kagent-dev/kmcp/cmd"
