package groups

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
)

// packedPoints is how many bytes a history has for its points: so many that all that is held of a partition stays below 300 bytes.
const packedPoints = 69

// packedHistory is a headHistory as the table holds it. Each point is the difference to the one before, in as many bytes as that needs: there
// is place for some 15 points of an ordinary partition, and for 3 of any.
type packedHistory struct {
	told, asked int64
	// seen is when the partition was last received, in unix seconds as all moments here.
	seen, toldAt, askedAt uint32
	number                int32
	// generation is that of the last search in which a state needed it.
	generation uint8
	followed   bool
	length     uint8 // of points, in bytes
	points     [packedPoints]byte
}

// unixSeconds is a moment in unix seconds, given in milliseconds: the nearest there is.
func unixSeconds(ms int64) uint32 { return uint32(min(max(ms/1000, 0), math.MaxUint32)) }

// open unpacks the history into h.
func (p *packedHistory) open(h *headHistory) {
	*h = headHistory{points: h.points[:0], told: p.told, toldAt: p.toldAt, asked: p.asked, askedAt: p.askedAt, followed: p.followed}
	var last headPoint
	for rest := p.points[:p.length]; len(rest) > 0; {
		offset, n := binary.Uvarint(rest)
		at, m := binary.Uvarint(rest[n:])
		last = headPoint{last.offset + int64(offset), last.at + int64(at)} //nolint:gosec // as it was packed
		h.points = append(h.points, last)
		rest = rest[n+m:]
	}
}

// close packs h. Of the points that have no place, those go that are missed least.
func (p *packedHistory) close(h *headHistory) {
	p.told, p.toldAt, p.asked, p.askedAt, p.followed = h.told, h.toldAt, h.asked, h.askedAt, h.followed
	for !p.pack(h.points) {
		h.remove(h.least())
	}
}

// pack says whether the points have had place.
func (p *packedHistory) pack(points []headPoint) bool {
	var buffer [packedPoints + 2*binary.MaxVarintLen64]byte
	packed := buffer[:0]
	var last headPoint
	for _, point := range points {
		packed = binary.AppendUvarint(packed, uint64(point.offset-last.offset)) //nolint:gosec // they are in order; otherwise it only takes more bytes
		packed = binary.AppendUvarint(packed, uint64(point.at-last.at))         //nolint:gosec // the same
		if len(packed) > packedPoints {
			return false
		}
		last = point
	}
	p.length = uint8(copy(p.points[:], packed))
	return true
}

// histories are those of a topic, ordered by number.
type histories []packedHistory

func (list histories) place(number int32) (i int, found bool) {
	if i := int(number); i < len(list) && list[i].number == number { // none is missing before it
		return i, true
	}
	return slices.BinarySearchFunc(list, number, func(p packedHistory, number int32) int { return cmp.Compare(p.number, number) })
}

// get returns the history of a partition, nil if there is none. It is good until the next insert.
func (list histories) get(number int32) *packedHistory {
	if i, found := list.place(number); found {
		return &list[i]
	}
	return nil
}

// insert makes a history, and leaves little place for further ones: most topics get no more partitions.
func (list histories) insert(number int32) (histories, *packedHistory) {
	if len(list) == cap(list) {
		grown := make(histories, len(list), len(list)+len(list)/8+1)
		copy(grown, list)
		list = grown
	}
	i, _ := list.place(number)
	list = slices.Insert(list, i, packedHistory{number: number})
	return list, &list[i]
}
