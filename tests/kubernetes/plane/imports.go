//go:build imports

// Package plane names the programs that build.py builds, so that `go mod tidy` keeps what they need.
package plane

import (
	_ "go.etcd.io/etcd/server/v3/etcdmain"
	_ "k8s.io/kubernetes/cmd/kube-apiserver/app"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)
