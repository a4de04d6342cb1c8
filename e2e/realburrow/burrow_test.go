// Package realburrow runs a real Burrow, set up with config/burrow, against the karrot binary and
// compares what Karrot exports with what Burrow's own API says. It needs Java and ZooKeeper, and takes
// four minutes: make e2e-burrow BURROW=<path of a Burrow binary>.
package realburrow

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lowess/karrot/e2e/realburrow/fakekafka"
)

const (
	repository = "../.."

	// silence is how long Burrow notifies nobody: it reads the list of groups every 60 seconds,
	// counted from its start.
	silence = 70 * time.Second
	// watchFor is how long groups move under Burrow's eyes.
	watchFor = 3 * time.Minute
	// patience is how long Karrot may disagree with Burrow about a group. Most of it is Burrow's: it
	// notifies every interval or every second one, and once a minute not before it has the new list.
	patience = 20 * time.Second
	// settle is how long Burrow may take to find out that a group commits no more.
	settle = time.Minute
	// calm is longer than a verdict's life in Burrow's cache and its way to Karrot.
	calm = 20 * time.Second
	// interval is the notifier's, in seconds. Twice that is less than the life of a verdict in the cache,
	// which the notifier and the API share, so each verdict is sent before the API shows the next.
	interval = "3"
	// expireAfter outlasts the pauses between two notifications of a group.
	expireAfter = "30s"
)

func TestBurrow(t *testing.T) {
	burrow := os.Getenv("BURROW")
	if burrow == "" {
		t.Skip("BURROW is not set; give it the path of a Burrow binary to run that one against Karrot")
	}
	karrot := os.Getenv("KARROT_BIN")
	if karrot == "" {
		karrot = filepath.Join(repository, "bin/karrot")
	}
	ctx, cancel := context.WithDeadline(t.Context(), deadline(t))
	defer cancel()

	local := startKafka(ctx, t, "local", fakekafka.Main)
	other := startKafka(ctx, t, "other", fakekafka.Second)
	a := addresses{local: local.Addr(), other: other.Addr()}
	var metrics, health, telemetry string
	freeAddrs(t, &a.zookeeper, &a.api, &a.webhook, &metrics, &health, &telemetry)

	startZooKeeper(ctx, t, a.zookeeper)
	_, telemetryPort, err := net.SplitHostPort(telemetry)
	if err != nil {
		t.Fatal(err)
	}
	start(t, "karrot", absolute(t, karrot), []string{
		"KARROT_ENDPOINT=" + a.webhook,
		"KARROT_PROMETHEUS_ENDPOINT=" + metrics,
		"KARROT_HEALTH_ENDPOINT=" + health,
		"KARROT_TELEMETRY_PORT=" + telemetryPort,
		"KARROT_EXPIRE_AFTER=" + expireAfter,
	}, "--config", absolute(t, filepath.Join(repository, "config/karrot.yaml")))
	waitForPage(ctx, t, "http://"+health+"/heartbeat")
	log := start(t, "burrow", absolute(t, burrow), nil, "--config-dir", writeBurrowConfig(t, a))
	end := time.Now().Add(watchFor)
	waitForPage(ctx, t, "http://"+a.api+"/burrow/admin/ready")

	o := newObserver(a.api, metrics, groupsOf(fakekafka.Main, "local"), groupsOf(fakekafka.Second, "other"))
	o.agree(ctx, t, silence+patience)
	t.Logf("agreed on all %d groups for the first time", len(o.wanted))

	if err := local.DeleteGroup(ctx, fakekafka.DoomedGroup); err != nil {
		t.Fatal(err)
	}
	if err := local.DeleteTopic(ctx, fakekafka.DoomedTopic); err != nil {
		t.Fatal(err)
	}
	delete(o.wanted, group{"local", fakekafka.DoomedGroup})
	o.watch(ctx, t, end, patience)
	o.agree(ctx, t, patience)
	t.Logf("agreed on all %d groups while they moved", len(o.wanted))
	o.checkVariety(t)

	for _, cluster := range []*fakekafka.Cluster{local, other} {
		if err := cluster.Still(ctx); err != nil {
			t.Fatal(err)
		}
	}
	o.agreeAtOnce(ctx, t, calm, settle+calm)
	t.Logf("agreed on all %d groups at once, and for %v, after they stood still", len(o.wanted), calm)

	checkBurrowLog(t, log)
}

// groupsOf names the groups of a scene that Burrow judges, and the one by which it reports itself.
func groupsOf(scene func() ([]fakekafka.Topic, []fakekafka.Group), cluster string) []group {
	_, inScene := scene()
	groups := []group{{cluster, "burrow-" + cluster}}
	for _, g := range inScene {
		// Burrow lists a group without commits, but finds none when asked for it, and never notifies.
		if g.Name != fakekafka.MembersOnlyGroup {
			groups = append(groups, group{cluster, g.Name})
		}
	}
	return groups
}
