package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

const defaultServer = "127.0.0.1:7883"

// asker holds what all verbs share that ask a node.
type asker struct {
	env     *Env
	to      way
	timeout time.Duration
}

func (a *asker) flags(cmd *cobra.Command) {
	a.connectionFlags(cmd)
	cmd.Flags().DurationVar(&a.timeout, "request-timeout", 10*time.Second, "how long to wait for an answer")
}

// ask runs f with a client of the node; its errors are made readable.
func (a *asker) ask(f func(adminpb.AdminClient) error) error {
	return a.dial(func(conn grpc.ClientConnInterface) error { return f(adminpb.NewAdminClient(conn)) })
}

// dial is ask for any of the node's services.
func (a *asker) dial(f func(grpc.ClientConnInterface) error) error {
	conn, err := a.to.dial(a.env)
	if err != nil {
		return err
	}
	defer conn.Close()
	return a.explain(f(conn))
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
	case codes.Unauthenticated:
		return fmt.Errorf("%s: use --cert and --key, --token-file or SKEIN_TOKEN", st.Message())
	case codes.DeadlineExceeded:
		return fmt.Errorf("%s did not answer in time: try another node with --server ADDR, or a longer --request-timeout", a.to.server)
	case codes.Unavailable:
		if why, ok := tlsTrouble(st.Message()); ok {
			return fmt.Errorf("%s: %s", a.to.server, why)
		}
		var op *net.OpError
		if errors.As(err, &op) || isConnect(st.Message()) {
			return fmt.Errorf("no node answers at %s: name the admin address of a running one with --server ADDR", a.to.server)
		}
	case codes.Canceled:
		return errors.New("interrupted")
	case codes.Unimplemented:
		return fmt.Errorf("the node at %s does not know this request: it runs an older version", a.to.server)
	}
	return errors.New(st.Message())
}

// tlsTrouble knows the words for a node that is there and speaks otherwise.
func tlsTrouble(message string) (why string, ok bool) {
	_, tail, found := strings.Cut(message, "authentication handshake failed: ")
	switch {
	case found && strings.Contains(tail, "first record does not look like a TLS handshake"):
		return "the node speaks no TLS there: leave --ca, --cert and --key out", true
	case found:
		return "the TLS handshake failed: " + strings.TrimSuffix(tail, `"`), true
	case strings.Contains(message, "error reading server preface"), strings.Contains(message, "http2: frame too large"):
		return "the node does not answer as expected: where it speaks TLS, name its authority with --ca FILE", true
	}
	return "", false
}

// isConnect knows grpc's words for a connection that could not be made.
func isConnect(message string) bool {
	for _, part := range []string{"connection error", "name resolver", "connection refused"} {
		if strings.Contains(message, part) {
			return true
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
