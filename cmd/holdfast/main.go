// Command holdfast is the agent of a node and the operator's commands.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/holdfast-ipam/holdfast/agent"
	"github.com/holdfast-ipam/holdfast/agent/inspect"
	"github.com/holdfast-ipam/holdfast/agent/install"
	"github.com/holdfast-ipam/holdfast/cni"
)

// version is set when the program is linked.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := app().RunContext(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "holdfast:", err)
		os.Exit(1)
	}
}

func app() *cli.App {
	socket := &cli.StringFlag{
		Name: "socket", Value: cni.DefaultSocket,
		Usage: "`path` of the unix socket between plugin and agent",
	}
	return &cli.App{
		Name:    "holdfast",
		Usage:   "addresses for pods that hold fast",
		Version: version,
		Commands: []*cli.Command{
			{
				Name: "agent", Usage: "lease addresses for this node and hand them to its pods",
				Flags: append(agentFlags(), socket), Action: runAgent,
			}, {
				Name: "install-cni", Usage: "put plugins and configuration where the container runtime looks",
				Flags: installFlags(), Action: runInstall,
			}, {
				Name: "journal", Usage: "show which address this node has for whom",
				Flags: []cli.Flag{socket, &cli.StringFlag{
					Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "`format`: table or json",
				}},
				Action: runJournal,
			},
		},
	}
}

func agentFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "node-name", EnvVars: []string{"NODE_NAME"}, Required: true, Usage: "`name` of this node"},
		&cli.StringFlag{Name: "namespace", EnvVars: []string{"POD_NAMESPACE"}, Required: true, Usage: "`namespace` of the agent"},
		&cli.StringFlag{Name: "pod-name", EnvVars: []string{"POD_NAME"}, Required: true, Usage: "`name` of the agent's pod"},
		&cli.StringFlag{Name: "journal", Value: "/var/lib/holdfast/journal.db", Usage: "`path` of the journal, on a disk that outlives the agent"},
		&cli.StringFlag{Name: "config", Usage: "`path` of conf.yml; without it the defaults hold"},
		&cli.StringFlag{Name: "http-address", Value: ":5710", Usage: "`address` for /healthz, /readyz and /metrics; empty for none"},
		&cli.StringFlag{Name: "webhook-address", Usage: "`address` for the webhook that judges objects when they are applied; without it there is none"},
		&cli.StringFlag{Name: "kubeconfig", EnvVars: []string{"KUBECONFIG"}, Usage: "`path` of a kubeconfig; without it the pod's own account is used"},
		&cli.StringFlag{Name: "log-level", Value: "info", Usage: "`level`: debug, info, warn or error"},
	}
}

func runAgent(c *cli.Context) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return fmt.Errorf("--log-level: %w", err)
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	klog.SetSlogLogger(log)
	config, err := agent.LoadConfig(c.String("config"))
	if err != nil {
		return err
	}
	rc, err := restConfig(c.String("kubeconfig"))
	if err != nil {
		return err
	}
	return agent.Run(c.Context, rc, agent.Options{
		NodeName:  c.String("node-name"),
		Namespace: c.String("namespace"), PodName: c.String("pod-name"),
		Socket: c.String("socket"), Journal: c.String("journal"),
		HTTPAddress: c.String("http-address"), WebhookAddress: c.String("webhook-address"), Version: version,
	}, config, log)
}

func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		rc, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("run in a pod, or name a --kubeconfig: %w", err)
		}
		return rc, nil
	}
	return clientcmd.BuildConfigFromFlags("", kubeconfig)
}

func installFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "binary", Value: "/usr/local/bin/holdfast-cni", Usage: "`path` of the plugin binary"},
		&cli.StringFlag{Name: "bin-dir", Value: "/opt/cni/bin", Usage: "`directory` of the node's plugins"},
		&cli.StringFlag{Name: "conf", Usage: "`path` of a configuration list to install; without it one installed earlier is removed"},
		&cli.StringFlag{Name: "conf-dir", Usage: "`directory` of the node's configurations; without it none is touched"},
		&cli.StringFlag{Name: "conf-name", Value: "10-holdfast.conflist", Usage: "`name` of the installed list; runtimes take the first by name"},
	}
}

func runInstall(c *cli.Context) error {
	return install.Run(install.Options{
		Binary: c.String("binary"), BinDir: c.String("bin-dir"), Names: install.Plugins(),
		Conf: c.String("conf"), ConfDir: c.String("conf-dir"), ConfName: c.String("conf-name"),
	})
}

func runJournal(c *cli.Context) error {
	format := c.String("output")
	if format != "table" && format != "json" {
		return fmt.Errorf("--output is %q: want table or json", format)
	}
	return inspect.Journal(c.Context, c.String("socket"), format == "json", time.Now(), os.Stdout)
}
