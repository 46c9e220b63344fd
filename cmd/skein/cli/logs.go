package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

func newLogs(a *asker) *cobra.Command {
	req := &adminpb.LogsRequest{}
	cmd := &cobra.Command{
		Use: "logs [NODE]", Short: "Print what a node has lately logged, and with -f what it logs", Args: arguments("[NODE]"),
		Long: "Print what a node has lately logged: the one that is named, else the one that is asked. It remembers as\n" +
			"many lines as admin.log_lines says. 'skein set log.level debug --node NODE' makes it say more.",
	}
	fs := cmd.Flags()
	fs.BoolVarP(&req.Follow, "follow", "f", false, "go on with what it logs")
	fs.Uint32Var(&req.Tail, "tail", 0, "lines to begin with (0: all that it remembers)")
	fs.StringVar(&req.Level, "level", "", "only this `LEVEL` and worse: debug, info, warn or error")
	a.flags(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		req.Node = strings.Join(args, "")
		return a.ask(func(c adminpb.AdminClient) error {
			stream, err := c.Logs(cmd.Context(), req)
			if err != nil {
				return err
			}
			for {
				l, err := stream.Recv()
				if errors.Is(err, io.EOF) && !req.Follow {
					return nil
				}
				if err != nil {
					return ended(err)
				}
				fmt.Fprintf(a.env.Out, "%s %-5s %s\n", time.UnixMilli(l.Time).Format("2006-01-02T15:04:05.000"), l.Level, readable([]byte(l.Text), 1<<16))
			}
		})
	})
	return cmd
}
