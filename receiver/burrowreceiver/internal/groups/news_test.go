package groups

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
)

// A group that only polls tell of has incidents with an ID of Karrot's own: the same from the first bad poll to the end, also over a
// restart, and another one for the next incident and for another group.
func TestOwnIncidentIDs(t *testing.T) {
	table := New(polledLimits)
	table.KeepEvents(10)
	poll := func(name string, second int, status burrow.Status) {
		g := evaluation(int64(second), burrow.StatusStop)
		g.Group, g.Status = name, status
		require.NoError(t, table.UpdateFromAPI(g, at(second)))
	}
	poll("g", 0, burrow.StatusOK)
	poll("g", 30, burrow.StatusErr)
	poll("other", 30, burrow.StatusErr)
	poll("g", 60, burrow.StatusErr)
	first, second := "", ""
	table.Each(func(s *State) {
		assert.Empty(t, s.Incidents.ID, "Burrow gave none")
		assert.Equal(t, at(30), s.Incidents.Start, "the first bad poll")
		if s.Group.Group == "g" {
			first = s.IncidentID()
			data, err := recordOf(s)
			require.NoError(t, err)
			restored, err := New(polledLimits).Restore(data, Times{}, at(61))
			require.NoError(t, err)
			assert.Equal(t, first, restored.IncidentID(), "after a restart")
			return
		}
		second = s.IncidentID()
	})
	assert.Regexp(t, `^[0-9a-f]{16}-karrot$`, first)
	assert.Regexp(t, `^[0-9a-f]{16}-karrot$`, second)
	assert.NotEqual(t, first, second)

	poll("g", 90, burrow.StatusOK)
	poll("g", 120, burrow.StatusWarn)
	var ids []string
	for _, e := range table.TakeEvents(10) {
		if e.Group == "g" {
			ids = append(ids, e.ID)
		}
	}
	require.Len(t, ids, 3)
	assert.Equal(t, []string{first, first}, ids[:2])
	assert.NotEqual(t, first, ids[2])
}

// recordOf is a record of a state that is in another table: one without histories of heads.
func recordOf(s *State) ([]byte, error) {
	return New(polledLimits).Record(s)
}

func TestNews(t *testing.T) {
	table := New(Limits{MaxGroups: 10, MaxPartitions: 10, ExpireAfter: time.Minute})
	table.KeepNews(2, 2)
	tell := func(name string, second int, status burrow.Status) {
		n := notification(name, 5)
		n.Group.Status = status
		require.NoError(t, table.Update(n, at(second)))
	}
	assert.Equal(t, News{}, table.TakeNews())
	for _, name := range []string{"a", "b", "d"} {
		tell(name, 0, burrow.StatusOK)
		tell(name, 1, burrow.StatusErr)
	}
	tell("a", 2, burrow.StatusWarn)
	tell("a", 3, burrow.StatusOK)
	news := table.TakeNews()
	require.Len(t, news.Events, 2, "the names are bounded")
	assert.Equal(t, "opened 86b8fee108a957c0-karrot since 1 at 1: OK to ERR", describe(news.Events[0]))
	assert.Equal(t, "a", news.Events[0].Group)
	assert.Equal(t, burrow.StatusErr, news.Events[0].Status)
	news.Events = nil
	assert.Equal(t, News{Opened: 3, Changed: 1, Ended: 1}, news, "the numbers are of all")
	assert.Equal(t, News{}, table.TakeNews(), "it is taken once")

	require.NoError(t, table.UpdateFromAPI(&notification("polled", 1).Group, at(30)))
	require.NoError(t, table.UpdateFromAPI(&notification("stays", 1).Group, at(61)))
	table.EndCluster("c", at(31), at(60))
	table.Expire(at(63))
	news = table.TakeNews()
	require.Len(t, news.Left, 2)
	assert.Equal(t, Departure{Cluster: "c", Group: "polled", By: EndedByGone}, news.Left[0])
	assert.Equal(t, EndedByExpiry, news.Left[1].By)
	news.Left, news.Events = nil, nil
	assert.Equal(t, News{Expired: 3, Gone: 1, Ended: 2}, news)

	silent := New(limits)
	bad := notification("g", 5)
	bad.Group.Status = burrow.StatusErr
	require.NoError(t, silent.Update(bad, at(0)))
	silent.Expire(at(1000))
	assert.Equal(t, News{Opened: 1, Ended: 1, Expired: 1}, silent.TakeNews(), "nobody asks for names")
}
