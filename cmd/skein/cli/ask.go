package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

const defaultServer = "127.0.0.1:7883"

// asker holds what all verbs share that ask a node.
type asker struct {
	env     *Env
	server  string
	timeout time.Duration
}

func (a *asker) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.server, "server", defaultServer, "admin `ADDR` of the node to ask; any will do")
	cmd.Flags().DurationVar(&a.timeout, "request-timeout", 10*time.Second, "how long to wait for an answer")
}

// ask runs f with a client of the node; its errors are made readable.
func (a *asker) ask(f func(adminpb.AdminClient) error) error {
	if _, _, err := net.SplitHostPort(a.server); err != nil {
		return usageError("--server: %q wants HOST:PORT, as in %s", a.server, defaultServer)
	}
	conn, err := grpc.NewClient("passthrough:///"+a.server,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return usageError("--server: %w", err)
	}
	defer conn.Close()
	return a.explain(f(adminpb.NewAdminClient(conn)))
}

// once is ask for a call that is over within --request-timeout.
func (a *asker) once(ctx context.Context, f func(context.Context, adminpb.AdminClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return a.ask(func(c adminpb.AdminClient) error { return f(ctx, c) })
}

func (a *asker) explain(err error) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	switch st.Code() {
	case codes.DeadlineExceeded:
		return fmt.Errorf("%s did not answer in time: try another node with --server ADDR, or a longer --request-timeout", a.server)
	case codes.Unavailable:
		var op *net.OpError
		if errors.As(err, &op) || isConnect(st.Message()) {
			return fmt.Errorf("no node answers at %s: name the admin address of a running one with --server ADDR", a.server)
		}
	case codes.Canceled:
		return errors.New("interrupted")
	case codes.Unimplemented:
		return fmt.Errorf("the node at %s does not know this request: it runs an older version", a.server)
	}
	return errors.New(st.Message())
}

// isConnect knows grpc's words for a connection that could not be made.
func isConnect(message string) bool {
	for _, part := range []string{"connection error", "error reading server preface", "name resolver", "connection refused"} {
		for i := 0; i+len(part) <= len(message); i++ {
			if message[i:i+len(part)] == part {
				return true
			}
		}
	}
	return false
}

func (a *asker) version(ctx context.Context) error {
	return a.once(ctx, func(ctx context.Context, c adminpb.AdminClient) error {
		v, err := c.Version(ctx, &adminpb.VersionRequest{})
		if err != nil {
			return err
		}
		fmt.Fprintf(a.env.Out, "%s: skein %s (%s, %s)\n", v.Node, v.Version, v.Commit, v.Go)
		return nil
	})
}
