package chaos

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

func TestScheduleIsTheSeeds(t *testing.T) {
	order := func(seed uint64) string {
		s := newSchedule(&Options{Seed: seed}, true)
		var list []string
		for range 2 * len(faults) {
			f, rng := s.next()
			list = append(list, f.name, string(rune('a'+rng.IntN(26))))
		}
		return strings.Join(list, " ")
	}
	if once, again := order(1), order(1); once != again {
		t.Error("the same seed gives another schedule")
	}
	if order(1) == order(2) {
		t.Error("two seeds give the same schedule")
	}
	s := newSchedule(&Options{Seed: 1}, true)
	seen := make(map[string]bool)
	for range faults {
		f, _ := s.next()
		seen[f.name] = true
	}
	if len(seen) != len(faults) {
		t.Errorf("%d of %d faults in the first round of all", len(seen), len(faults))
	}
}

func TestOptions(t *testing.T) {
	good := Options{Binary: "skein", Dir: "d", Nodes: 3, Length: 1, Round: 1, Rate: 1, Faults: []string{"roll"}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	bad := good
	bad.Faults = []string{"rol"}
	if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), "roll") {
		t.Errorf("an unknown fault: %v", err)
	}
	bad = good
	bad.Nodes = 2
	if bad.Validate() == nil {
		t.Error("two nodes are taken")
	}
}

// TestKill is one short round on a real cluster.
func TestKill(t *testing.T) {
	if os.Getenv("TEST_SKEIN_HEAVY") == "" {
		t.Skip("takes a quarter of a minute: set TEST_SKEIN_HEAVY=1, or run scripts/chaos")
	}
	m, err := Run(t.Context(), &Options{
		Seed: 1, Length: 2 * time.Second, Round: 2 * time.Second, Faults: []string{"kill-leader"}, Nodes: 3, Rate: 1,
		Binary: harness.Binary(t), Dir: t.TempDir(), Out: t.Output(),
	})
	if err != nil {
		t.Fatal(err)
	}
	broken, _ := m.Violations()
	for _, v := range broken {
		t.Error(v)
	}
	if m.stats.acks[1] == 0 || m.stats.delivered[2] == 0 {
		t.Error("nothing was published")
	}
}
