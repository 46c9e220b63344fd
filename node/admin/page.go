package admin

import (
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

const (
	defaultPage = 500
	largestPage = 5000
	// pageBytes bounds a page whose items may be large; one item may exceed it.
	pageBytes = 1 << 20
)

func pageSize(p *adminpb.Page) (int, error) {
	size := int(p.GetSize())
	switch {
	case size == 0:
		return defaultPage, nil
	case size > largestPage:
		return 0, status.Errorf(codes.InvalidArgument, "page.size: %d is more than %d", size, largestPage)
	}
	return size, nil
}

// smallest keeps the size+1 items with the smallest keys of what it is shown: a page, and whether
// there is more. Its cost is that of a sort now and then, its memory that of two pages.
type smallest[T any] struct {
	size  int
	after string
	key   func(T) string
	items []T
}

// add shows one item.
func (s *smallest[T]) add(item T) {
	if s.key(item) <= s.after {
		return
	}
	s.items = append(s.items, item)
	if len(s.items) >= 2*(s.size+1) {
		s.cut()
	}
}

func (s *smallest[T]) cut() {
	slices.SortStableFunc(s.items, func(a, b T) int { return strings.Compare(s.key(a), s.key(b)) })
	if len(s.items) > s.size+1 {
		clear(s.items[s.size+1:])
		s.items = s.items[:s.size+1]
	}
}

// page returns the items and the token of the next page, empty at the end.
func (s *smallest[T]) page() ([]T, string) {
	s.cut()
	if len(s.items) <= s.size {
		return s.items, ""
	}
	return s.items[:s.size], s.key(s.items[s.size-1])
}

func subscriptionKey(s *adminpb.Subscription) string {
	// No MQTT string holds U+0000, so the order is that of client, then filter, then group.
	return s.Client + "\x00" + s.Filter + "\x00" + s.Group
}
