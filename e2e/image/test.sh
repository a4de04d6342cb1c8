#!/bin/sh
# Builds the image with buildah, from a base image that is made of this machine's own Go and tools,
# runs it, posts a notification, reads the metrics, and stops it with SIGTERM.
# Needs root (or user namespaces), buildah, Go, make, curl.
set -eu
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
store="--root $work/store --runroot $work/run"
container= pid=
finish() {
	status=$?
	trap - EXIT
	[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true
	[ -z "$container" ] || buildah $store rm "$container" >/dev/null || true
	[ $status -eq 0 ] || { echo "the image test failed; the container's output:"; cat "$work/log" 2>/dev/null || true; }
	rm -rf "$work"
	exit $status
}
trap finish EXIT
step() { echo "image-test: $*"; }
fail() { echo "image-test: $*" >&2; exit 1; }

step "making a base image from this machine"
base=$work/base
mkdir -p "$base/etc/ssl/certs" "$base/usr/local" "$base/bin" "$base/tmp" "$base/root" "$base/usr/bin"
for tool in sh make sed mkdir printf env cat uname git; do
	path=$(command -v "$tool") || continue
	case $path in /*) ;; *) path=/bin/$tool; [ -e "$path" ] || path=/usr/bin/$tool ;; esac
	cp -L "$path" "$base/bin/$tool"
	# The libraries that the tool is linked with, where it looks for them.
	ldd "$path" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
		mkdir -p "$base$(dirname "$library")"
		cp -L "$library" "$base$library"
	done
done
cp -L /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs/"
cp /etc/resolv.conf "$base/etc/" 2>/dev/null || true
goroot=$(go env GOROOT)
mkdir -p "$base$goroot"
cp -R "$goroot/bin" "$goroot/pkg" "$goroot/src" "$goroot/go.env" "$goroot/VERSION" "$base$goroot/"
rm -rf "$base$goroot/pkg/obj"
from=$(buildah $store from scratch)
buildah $store copy --quiet "$from" "$base" / >/dev/null
buildah $store config --env "PATH=$goroot/bin:/bin:/usr/bin" --env HOME=/root "$from"
buildah $store commit --quiet "$from" localhost/go-of-this-machine >/dev/null
buildah $store rm "$from" >/dev/null
rm -rf "$base"

step "building"
# The caches of this machine, so that nothing is fetched or built twice.
buildah $store bud --quiet --layers=false --pull-never \
	--build-arg GO_IMAGE=localhost/go-of-this-machine --build-arg VERSION=image-test \
	--volume "$(go env GOMODCACHE):/root/go/pkg/mod" --volume "$(go env GOCACHE):/root/.cache/go-build" \
	-t localhost/karrot . >"$work/build.log" 2>&1 || { cat "$work/build.log"; fail "the image does not build"; }

step "looking at it"
inspect=$(buildah $store inspect --type image localhost/karrot)
echo "$inspect" | grep -q '"User": "10001:10001"' || fail "the image does not run as user 10001"
container=$(buildah $store from --pull-never localhost/karrot)
root=$(buildah $store mount "$container")
[ -s "$root/etc/ssl/certs/ca-certificates.crt" ] || fail "CA certificates are missing"
for config in config/*.yaml config/burrow/*; do
	[ -e "$root/$config" ] || fail "$config is missing"
done
[ "$(stat -c '%u:%g' "$root/var/lib/karrot")" = 10001:10001 ] || fail "/var/lib/karrot is not that of user 10001"
extra=$(ls "$root" | grep -v -E '^(config|etc|karrot|var|dev|proc|run|sys)$' || true)
[ -z "$extra" ] || fail "the image has more than it needs: $extra"
flat=$(echo "$inspect" | tr -d ' \n')
for part in '"Entrypoint":["/karrot"]' '"KARROT_ENDPOINT=0.0.0.0:5000"'; do
	echo "$flat" | grep -qF "$part" || fail "the image's configuration has no $part"
done

step "running it"
# With storage, where the image itself has a directory for it.
entrypoint="/karrot --config karrot:storage"
# The ports of the image may be taken here; a port of its own is found by asking for one.
port() { awk -v seed="$1$$" 'BEGIN { srand(seed); print 20000 + int(rand() * 20000) }'; }
webhook=$(port 1) page=$(port 2) health=$(port 3) telemetry=$(port 4)
buildah $store run --user 10001:10001 \
	--env KARROT_ENDPOINT=127.0.0.1:"$webhook" --env KARROT_PROMETHEUS_ENDPOINT=127.0.0.1:"$page" \
	--env KARROT_HEALTH_ENDPOINT=127.0.0.1:"$health" --env KARROT_TELEMETRY_HOST=127.0.0.1 --env KARROT_TELEMETRY_PORT="$telemetry" \
	"$container" -- $entrypoint >"$work/log" 2>&1 &
pid=$!
for _ in $(seq 100); do
	curl -fs "http://127.0.0.1:$health/heartbeat" >/dev/null 2>&1 && break
	kill -0 $pid || fail "it ended"
	sleep 0.2
done
inside() { buildah $store run --user 10001:10001 --env KARROT_HEALTH_ENDPOINT=0.0.0.0:"$health" "$container" -- "$@"; }
inside /karrot healthcheck || fail "the health check does not find it"
curl -fsS --data-binary @testdata/notifications/warn.json "http://127.0.0.1:$webhook/burrow"
sleep 2
want='burrow_group_total_lag{cluster="east",group="fraud-check"} 2698'
curl -fsS "http://127.0.0.1:$page/metrics" | grep -F "$want" || fail "not on /metrics: $want"
curl -fsS "http://127.0.0.1:$telemetry/metrics" | grep -F 'otelcol_receiver_burrow_notifications_total{outcome="accepted",receiver="burrow"} 1' || fail "own metrics are not served"

step "stopping it with SIGTERM"
karrot=$(pgrep -f "^$entrypoint" | head -n 1)
[ -n "$karrot" ] || fail "no such process: $entrypoint"
grep -q '^Uid:[[:space:]]*10001' "/proc/$karrot/status" || fail "it does not run as user 10001"
kill -TERM "$karrot"
status=0
wait $pid || status=$?
pid=
[ $status -eq 0 ] || fail "exit code $status"
grep -q 'Shutdown complete' "$work/log" || fail "it did not say that it has shut down"
[ -s "$root"/var/lib/karrot/* ] || fail "the storage was not written"
! inside /karrot healthcheck 2>/dev/null || fail "the health check finds what is not there"
buildah $store umount "$container" >/dev/null
step "passed"
