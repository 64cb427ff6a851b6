//! Undoes a `Content-Encoding` (RFC 9110 section 8.4), so that an agent card can be read.
//!
//! Cards only, which we ask for without one: gzip and deflate are what servers use unasked. Bounded: a
//! small body that grows beyond the bound is refused, not unpacked. Knows bytes.

use std::io::Read;

/// Decodes `bytes`, whose encodings stand in `encodings` in the order they were applied. `None` for an
/// unknown encoding, broken bytes, or more than `max` bytes.
#[must_use]
pub fn decode(encodings: &str, bytes: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut body = bytes.to_vec();
    for encoding in encodings.rsplit(',') {
        let encoding = encoding.trim().to_ascii_lowercase();
        body = match encoding.as_str() {
            "" | "identity" => body,
            "gzip" | "x-gzip" => read(flate2::read::MultiGzDecoder::new(body.as_slice()), max)?,
            "deflate" => read(flate2::read::ZlibDecoder::new(body.as_slice()), max)
                .or_else(|| read(flate2::read::DeflateDecoder::new(body.as_slice()), max))?,
            _ => return None,
        };
    }
    Some(body)
}

fn read(decoder: impl Read, max: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    decoder.take(max as u64 + 1).read_to_end(&mut out).ok()?;
    (out.len() <= max).then_some(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const TEXT: &[u8] = br#"{"url":"http://helper.team-a:8080"}"#;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_servers_send_is_read() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(TEXT).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
        raw.write_all(TEXT).unwrap();
        for (encoding, bytes) in [
            ("identity", TEXT.to_vec()),
            ("GZIP", gzip(TEXT)),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", raw.finish().unwrap()),
            ("gzip, x-gzip", gzip(&gzip(TEXT))),
        ] {
            let decoded = decode(encoding, &bytes, 1000);
            assert_eq!(decoded.as_deref(), Some(TEXT), "{encoding}");
        }
    }

    #[test]
    fn bombs_unknown_encodings_and_broken_bytes_are_refused() {
        assert_eq!(decode("gzip", &gzip(&[0; 100_000]), 99_999), None);
        assert!(decode("gzip", &gzip(&[0; 100_000]), 100_000).is_some());
        for encoding in ["gzip", "deflate", "br", "zstd", "compress"] {
            assert_eq!(decode(encoding, TEXT, 1000), None, "{encoding}");
        }
        let cut = gzip(TEXT);
        assert_eq!(decode("gzip", &cut[..cut.len() - 9], 1000), None);
    }
}
