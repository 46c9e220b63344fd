// Command skein is the broker and its client in one binary.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/skein-mqtt/skein/cmd/skein/cli"
	"github.com/skein-mqtt/skein/cmd/skein/run"
)

func main() {
	err := start(context.Background(), os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "skein: "+err.Error())
	}
	os.Exit(cli.ExitCode(err))
}

func start(ctx context.Context, args []string) error {
	return cli.Execute(ctx, cli.Env{Out: os.Stdout, Err: os.Stderr, Environ: os.Environ(), Run: run.Run}, args)
}
