//go:generate go tool -modfile=../../internal/tools/go.mod mdatagen metadata.yaml

// Package burrowreceiver receives the HTTP notifications of Burrow and turns them into metrics.
//
// The data path has two halves that meet in a table:
//
//	request -> connections, guard (path, method, site) -> confighttp (authentication, size) -> webhook -> burrow.DecodeWithin -> groups.Table.Update -> answer
//	every collection_interval -> poller -> burrow.API -> groups.Table.UpdateFromAPI, UpdateTopic, EndMissing
//	every interval -> emitter -> groups.Table.Collect -> metrics -> the pipelines -> groups.Table.Commit
//	every interval -> emitter -> groups.Table.Events -> logs -> the pipelines -> groups.Table.CommitEvents
//
// Burrow is answered before the pipelines have the data, because it never repeats a notification, holds
// a lock while it notifies, and the Collector's fan-out is synchronous: one hanging exporter would
// otherwise reach Burrow. The table keeps the newest state of each group, so a slow or refusing
// pipeline costs freshness and never state.
package burrowreceiver
