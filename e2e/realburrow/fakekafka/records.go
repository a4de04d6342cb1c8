package fakekafka

import (
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// commit makes the records of one commit of the group.
func (g *group) commit(now time.Time, heads map[partition]int64) []*kgo.Record {
	var records []*kgo.Record
	for topic, partitions := range g.Commits {
		for number, behavior := range partitions {
			if behavior == nil {
				continue
			}
			p := partition{topic, number}
			at := g.offsets[p]
			if at == nil {
				at = &progress{offset: max(0, heads[p]-g.StartLag)}
				g.offsets[p] = at
			}
			offset, ok := behavior(at.commits, at.offset, heads[p])
			at.commits++
			if !ok {
				continue
			}
			at.offset = offset
			key := kmsg.OffsetCommitKey{Version: 1, Group: g.Name, Topic: topic, Partition: number}
			value := kmsg.OffsetCommitValue{
				Version:         3,
				Offset:          offset,
				LeaderEpoch:     -1,
				CommitTimestamp: now.UnixMilli(),
			}
			records = append(records, &kgo.Record{Topic: offsetsTopic, Key: key.AppendTo(nil), Value: value.AppendTo(nil)})
		}
	}
	return records
}

// metadata makes the record that says which member owns which partitions: one member owns all.
func (g *group) metadata(now time.Time) *kgo.Record {
	topics := slices.Sorted(maps.Keys(g.Commits))
	assignment := kmsg.ConsumerMemberAssignment{Version: 1}
	for _, topic := range topics {
		assignment.Topics = append(assignment.Topics, kmsg.ConsumerMemberAssignmentTopic{
			Topic:      topic,
			Partitions: slices.Sorted(maps.Keys(g.Commits[topic])),
		})
	}
	subscription := kmsg.ConsumerMemberMetadata{Version: 1, Topics: topics}

	member := kmsg.NewGroupMetadataValueMember()
	member.MemberID = g.ClientID + "-0f0e0d0c-0b0a-4908-8706-050403020100"
	member.ClientID = g.ClientID
	member.ClientHost = "/192.0.2.11"
	member.RebalanceTimeoutMillis = 300_000
	member.SessionTimeoutMillis = 45_000
	member.Subscription = subscription.AppendTo(nil)
	member.Assignment = assignment.AppendTo(nil)

	value := kmsg.GroupMetadataValue{
		Version:               3,
		ProtocolType:          "consumer",
		Generation:            1,
		Protocol:              new("range"),
		Leader:                &member.MemberID,
		CurrentStateTimestamp: now.UnixMilli(),
		Members:               []kmsg.GroupMetadataValueMember{member},
	}
	return &kgo.Record{Topic: offsetsTopic, Key: metadataKey(g.Name), Value: value.AppendTo(nil)}
}

func metadataKey(name string) []byte {
	key := kmsg.GroupMetadataKey{Version: 2, Group: name}
	return key.AppendTo(nil)
}
