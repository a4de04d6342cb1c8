package groups

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"sort"
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
	if cap(h.points) <= maxHeadPoints {
		h.points = make([]headPoint, 0, maxHeadPoints+1)
	}
	var last, point headPoint
	packed := p.points[:p.length]
	for i := 0; i < len(packed); {
		point.offset, i = unpack(packed, i)
		point.at, i = unpack(packed, i)
		last.offset += point.offset
		last.at += point.at
		h.points = append(h.points, last)
	}
}

// unpack reads the number at i and returns the place behind it.
func unpack(packed []byte, i int) (v int64, next int) {
	for shift := 0; i < len(packed); shift += 7 {
		b := packed[i]
		i++
		v |= int64(b&0x7f) << shift
		if b < 0x80 {
			break
		}
	}
	return v, i
}

// close packs h. Of the points that have no place, those go that are missed least.
func (p *packedHistory) close(h *headHistory) {
	p.told, p.toldAt, p.asked, p.askedAt, p.followed = h.told, h.toldAt, h.asked, h.askedAt, h.followed
	size := 0
	for i := range h.points {
		size += h.packedSize(i)
	}
	for size > packedPoints {
		i := h.least()
		size -= h.packedSize(i) + h.packedSize(i+1)
		h.remove(i)
		size += h.packedSize(i)
	}
	packed := p.points[:0]
	var last headPoint
	for _, point := range h.points {
		packed = binary.AppendUvarint(packed, uint64(point.offset-last.offset)) //nolint:gosec // they are in order; otherwise it only takes more bytes
		packed = binary.AppendUvarint(packed, uint64(point.at-last.at))         //nolint:gosec // the same
		last = point
	}
	p.length = uint8(len(packed)) //nolint:gosec // at most packedPoints
}

// packedSize is how many bytes point i takes.
func (h *headHistory) packedSize(i int) int {
	point := h.points[i]
	if i > 0 {
		point.offset -= h.points[i-1].offset
		point.at -= h.points[i-1].at
	}
	return uvarintSize(point.offset) + uvarintSize(point.at)
}

func uvarintSize(v int64) int { return (bits.Len64(uint64(v)|1) + 6) / 7 } //nolint:gosec // as it is packed

// histories are those of a topic, ordered by number.
type histories []packedHistory

func (list histories) place(number int32) (i int, found bool) {
	if i := int(number); i < len(list) && list[i].number == number { // none is missing before it
		return i, true
	}
	i = sort.Search(len(list), func(i int) bool { return list[i].number >= number })
	return i, i < len(list) && list[i].number == number
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
