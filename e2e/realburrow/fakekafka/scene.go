package fakekafka

// The parts of the scene that a test acts on or looks for by name.
const (
	// DoomedGroup is there to be deleted.
	DoomedGroup = "reports-batch"
	// DoomedTopic is there to be deleted; OrphanedGroup reads nothing else.
	DoomedTopic   = "temp.export"
	OrphanedGroup = "temp-export-reader"
	// FlappingGroup goes from bad to good and back all the time.
	FlappingGroup = "flapper"
	// MembersOnlyGroup has a member and has never committed.
	MembersOnlyGroup = "members-only"
	// UnreachableGroup cannot be asked for in Burrow's API because of the slash in its name.
	UnreachableGroup = `back\slash/and:colon`
)

// Main is the scene of the larger of two clusters: every kind of health, and odd names.
func Main() ([]Topic, []Group) {
	topics := []Topic{
		{Name: "orders", Partitions: 4, Seed: 1000, Rate: 12},
		{Name: "payments", Partitions: 2, Seed: 700, Rate: 9},
		{Name: "clicks-raw", Partitions: 12, Seed: 500, Rate: 6},
		{Name: "audit.events_v2", Partitions: 14, Seed: 500, Rate: 5},
		{Name: "ref.rates", Partitions: 3, Seed: 60},
		{Name: DoomedTopic, Partitions: 2, Seed: 90, Rate: 4},
	}

	clicks := All(12, KeepUp)
	clicks[3], clicks[9], clicks[11] = Stuck, FallBehind, GoBack
	audit := All(14, Sawtooth)
	audit[0], audit[7], audit[13] = Stuck, Fail, Fail
	groups := []Group{
		{Name: "billing-service", ClientID: "billing", Commits: reads("orders", All(4, KeepUp))},
		{Name: "refdata-cache", ClientID: "rdkafka", Commits: reads("ref.rates", All(3, KeepUp))},
		{Name: "search-indexer", StartLag: 60, ClientID: "search", Commits: reads("orders", All(4, Sawtooth))},
		{Name: "fraud-check", StartLag: 300, ClientID: "fraud", Commits: reads("orders", map[int32]Behavior{
			0: FallBehind, 1: FallBehind, 2: Sawtooth, 3: KeepUp,
		})},
		{Name: "payments-ledger", StartLag: 120, ClientID: "ledger", Commits: reads("payments", map[int32]Behavior{
			0: KeepUp, 1: Stuck,
		})},
		{Name: "payments-export", Commits: reads("payments", All(2, Fail))},
		{Name: "orders-replay", StartLag: 20, ClientID: "replay", Commits: reads("orders", map[int32]Behavior{
			0: KeepUp, 1: GoBack, 2: KeepUp, 3: KeepUp,
		})},
		{Name: "warehouse-etl", StartLag: 40, ClientID: "etl", Commits: map[string]map[int32]Behavior{
			"clicks-raw": clicks, "audit.events_v2": audit,
		}},
		{Name: "partial-commits", ClientID: "partial", Commits: reads("ref.rates", map[int32]Behavior{
			1: KeepUp, 2: nil,
		})},
		{Name: FlappingGroup, StartLag: 15, ClientID: "flapper", Commits: reads("payments", All(2, Flap))},
		{Name: DoomedGroup, StartLag: 30, ClientID: "reports", Commits: reads("orders", All(4, Stuck))},
		{Name: OrphanedGroup, StartLag: 33, ClientID: "export", Commits: reads(DoomedTopic, All(2, Stuck))},
		{Name: MembersOnlyGroup, ClientID: "idle", Commits: reads("orders", All(2, nil))},
	}
	for i, name := range []string{
		`team "A" <orders> & 'co'`,
		"группа-заказы.v1",
		"Ünï-çødé.😀",
		"perc%20ent?x=1&y=2#frag",
		"tab\there\nand newline",
		"{{.Cluster}}",
		UnreachableGroup,
	} {
		groups = append(groups, Group{
			Name: name, StartLag: 21 + int64(i), ClientID: name,
			Commits: reads("orders", map[int32]Behavior{int32(i % 4): Stuck}),
		})
	}
	return topics, groups
}

// Second is the scene of the other cluster. It has groups of the same names as the first.
func Second() ([]Topic, []Group) {
	topics := []Topic{{Name: "orders", Partitions: 2, Seed: 300, Rate: 7}}
	groups := []Group{
		{Name: "billing-service", ClientID: "billing", Commits: reads("orders", All(2, KeepUp))},
		{Name: "fraud-check", StartLag: 5, Commits: reads("orders", All(2, Fail))},
	}
	return topics, groups
}

// reads is what a group commits that reads one topic.
func reads(topic string, partitions map[int32]Behavior) map[string]map[int32]Behavior {
	return map[string]map[int32]Behavior{topic: partitions}
}
