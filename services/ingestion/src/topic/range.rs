//! Which offsets a version covers.

use tidemill_eventlog::reader::Extent;
use tidemill_proto::ingestion::v1::dataset_version::TopicRange;

/// From where the last version ended, or the beginning, to where the topic ends.
pub(super) fn after(last: &[TopicRange], extents: &[Extent]) -> Vec<TopicRange> {
    let begin = |partition| last.iter().find(|range| range.partition == partition).map_or(0, |range| range.end_offset);
    let range = |extent: &Extent| {
        let begin_offset = begin(extent.partition);
        TopicRange { partition: extent.partition, begin_offset, end_offset: extent.end.max(begin_offset) }
    };
    extents.iter().map(range).collect()
}

/// Offsets in all, of those that are still there.
pub(super) fn length(ranges: &[TopicRange], extents: &[Extent]) -> u64 {
    ranges.iter().map(|range| there(range, extents)).sum()
}

/// Shortens the ranges to at most `most` offsets, taken evenly: a short partition leaves its share to the others. The same ranges are
/// always shortened in the same way.
pub(super) fn shorten(ranges: &mut [TopicRange], extents: &[Extent], most: u64) {
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.sort_by_key(|&index| (there(&ranges[index], extents), ranges[index].partition));
    let mut left = most;
    for (done, &index) in order.iter().enumerate() {
        let length = there(&ranges[index], extents);
        let share = left / (order.len() - done) as u64;
        if length > share {
            ranges[index].end_offset -= i64::try_from(length - share).unwrap_or(i64::MAX);
        }
        left -= length.min(share);
    }
}

fn there(range: &TopicRange, extents: &[Extent]) -> u64 {
    let oldest = extents.iter().find(|extent| extent.partition == range.partition).map_or(0, |extent| extent.begin);
    u64::try_from(range.end_offset - range.begin_offset.max(oldest)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(ends: &[i64]) -> Vec<Extent> {
        (0..).zip(ends).map(|(partition, &end)| Extent { partition, begin: 0, end }).collect()
    }

    #[test]
    fn a_version_begins_where_the_last_one_ended() {
        let first = after(&[], &extents(&[5, 7]));
        assert_eq!(
            first.iter().map(|range| (range.begin_offset, range.end_offset)).collect::<Vec<_>>(),
            [(0, 5), (0, 7)]
        );
        // One partition was added meanwhile.
        let second = after(&first, &extents(&[5, 9, 3]));
        let ranges: Vec<_> =
            second.iter().map(|range| (range.partition, range.begin_offset, range.end_offset)).collect();
        assert_eq!(ranges, [(0, 5, 5), (1, 7, 9), (2, 0, 3)]);
        assert_eq!(length(&second, &extents(&[5, 9, 3])), 5);
    }

    #[test]
    fn a_limit_is_shared_evenly_and_used_up() {
        let ends = |lengths: &[i64], most| {
            let extents = extents(lengths);
            let mut ranges = after(&[], &extents);
            shorten(&mut ranges, &extents, most);
            ranges.iter().map(|range| range.end_offset).collect::<Vec<_>>()
        };
        assert_eq!(ends(&[100, 2, 50], 30), [14, 2, 14]);
        assert_eq!(ends(&[100, 2, 3], 30), [25, 2, 3]);
        assert_eq!(ends(&[1, 2, 3], 30), [1, 2, 3]);
        assert_eq!(ends(&[10, 10, 10], 10), [3, 3, 4]);
        assert_eq!(ends(&[10, 10], 0), [0, 0]);
    }

    #[test]
    fn offsets_that_retention_has_taken_do_not_count() {
        let extents = [Extent { partition: 0, begin: 90, end: 100 }];
        let mut ranges = after(&[], &extents);
        assert_eq!(length(&ranges, &extents), 10);
        shorten(&mut ranges, &extents, 4);
        assert_eq!(ranges[0].end_offset, 94);
    }
}
