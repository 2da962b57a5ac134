// Command node is a Kubernetes node for tests: it runs the containers of pods as processes of this machine. README.md says what it is
// and what it is not.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Settings of the node.
type settings struct {
	name        string
	root        string
	kubeconfig  string
	certificate string
	key         string
	clientCA    string
	gpus        int64
	labels      map[string]string
	// Programs by the last part of an image's name, for containers that give no command.
	entrypoints map[string]string
	// Where containers see folders of this machine.
	shares map[string]string
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "container" {
		enterContainer(os.Args[2])
	}
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	own := settings{labels: map[string]string{}, entrypoints: map[string]string{}, shares: map[string]string{}}
	flag.StringVar(&own.name, "name", "node-1", "the node's name")
	flag.StringVar(&own.root, "root", "", "folder for logs and volumes of pods")
	flag.StringVar(&own.kubeconfig, "kubeconfig", "", "credentials of the node")
	flag.StringVar(&own.certificate, "tls-cert", "", "certificate that the API server checks when it asks for logs")
	flag.StringVar(&own.key, "tls-key", "", "its key")
	flag.StringVar(&own.clientCA, "client-ca", "", "authority of those who may ask for logs")
	flag.Int64Var(&own.gpus, "gpus", 0, "nvidia.com/gpu that the node says it has")
	flag.Func("label", "NAME=VALUE on the Node; repeatable", pairs(own.labels))
	flag.Func("entrypoint", "IMAGE=PROGRAM ARGUMENTS... for containers without a command; IMAGE is the last part of the image's name; repeatable", pairs(own.entrypoints))
	flag.Func("share", "FOLDER=PATH: a folder of this machine that every container sees at PATH; repeatable", pairs(own.shares))
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", own.kubeconfig)
	if err != nil {
		log.Fatalf("kubeconfig: %v", err)
	}
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatalf("kubeconfig: %v", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	pods := newPods(own, client, config.Host)
	port, err := serveLogs(own, pods)
	if err != nil {
		log.Fatalf("log API: %v", err)
	}
	if err := register(ctx, own, client, port); err != nil {
		log.Fatalf("node: %v", err)
	}
	// Containers die with this process: the kernel sees to it.
	pods.run(ctx)
}

func pairs(into map[string]string) func(string) error {
	return func(text string) error {
		name, value, _ := strings.Cut(text, "=")
		into[name] = value
		return nil
	}
}
