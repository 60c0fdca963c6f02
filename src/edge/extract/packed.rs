//! Unpacks compressed bodies (`Content-Encoding: gzip`) while they are read: the body limit applies to the unpacked size, so a small
//! body cannot expand beyond it. Other encodings are refused, with a list of the supported ones.

use std::io::Write;

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use flate2::write::MultiGzDecoder;

use crate::edge::problem::Problem;
use crate::edge::slugs;

/// `Accept-Encoding` of a refusal (RFC 9110, 12.5.3).
pub const KNOWN_ENCODINGS: &str = "gzip";

/// Size of a slice to unpack at once: a kilobyte expands to a megabyte at most.
const SLICE: usize = 1 << 10;

/// The encoding of a body.
pub enum Coding {
    Plain,
    Gzip(Box<MultiGzDecoder<Bounded>>),
}

/// A buffer of unpacked bytes; writing beyond its bound is an error, which stops the unpacking.
pub struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

/// Why a part of a body could not be unpacked.
#[derive(Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The unpacked body is too large.
    TooLarge,
    /// The data is not gzip, or is truncated.
    Broken,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.most {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Coding {
    /// Reads the encoding from the headers. `most` bounds the buffer of unpacked bytes.
    ///
    /// # Errors
    /// 415 for an unknown encoding, or more than one.
    pub fn of(headers: &HeaderMap, most: usize) -> Result<Self, Problem> {
        let mut given = headers.get_all(header::CONTENT_ENCODING).iter();
        let (first, more) = (given.next(), given.next().is_some());
        let name = first.map_or("identity", |value| value.to_str().unwrap_or("unreadable")).trim();
        match name.to_ascii_lowercase().as_str() {
            "identity" | "" if !more => Ok(Self::Plain),
            "gzip" | "x-gzip" if !more => {
                Ok(Self::Gzip(Box::new(MultiGzDecoder::new(Bounded { bytes: Vec::new(), most }))))
            }
            _ => {
                let detail = format!("Content-Encoding {name:?} is not known: send the body as it is, or gzip");
                Err(Problem::new(&slugs::UNSUPPORTED_MEDIA_TYPE).detail(detail).telling_encodings())
            }
        }
    }

    /// The next slice of received bytes: small enough to unpack in clearly less than 5 ms, whatever it expands to.
    pub fn slice(&self, pending: &mut Bytes) -> Bytes {
        match self {
            Self::Plain => std::mem::take(pending),
            Self::Gzip(_) => pending.split_to(pending.len().min(SLICE)),
        }
    }

    /// Yields to other tasks between two slices.
    pub async fn breathe(&self) {
        if let Self::Gzip(_) = self {
            tokio::task::yield_now().await;
        }
    }

    /// Unpacks a part, and appends the unpacked bytes to `into`.
    pub fn unpack(&mut self, part: &[u8], into: &mut Vec<u8>) -> Result<(), Misfit> {
        match self {
            Self::Plain => into.extend_from_slice(part),
            Self::Gzip(decoder) => {
                decoder.write_all(part).map_err(|error| misfit(&error))?;
                decoder.flush().map_err(|error| misfit(&error))?;
                into.append(&mut decoder.get_mut().bytes);
            }
        }
        Ok(())
    }

    /// Finishes the body; a truncated one is an error.
    pub fn end(&mut self, into: &mut Vec<u8>) -> Result<(), Misfit> {
        if let Self::Gzip(decoder) = self {
            decoder.try_finish().map_err(|error| misfit(&error))?;
            into.append(&mut decoder.get_mut().bytes);
        }
        Ok(())
    }
}

fn misfit(error: &std::io::Error) -> Misfit {
    if error.kind() == std::io::ErrorKind::FileTooLarge { Misfit::TooLarge } else { Misfit::Broken }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(most: usize) -> Coding {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        Coding::of(&headers, most).unwrap_or_else(|_| panic!("gzip is known"))
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(parts: &[&[u8]], most: usize) -> Result<Vec<u8>, Misfit> {
        let (mut coding, mut all) = (gzip(most), Vec::new());
        for part in parts {
            coding.unpack(part, &mut all)?;
        }
        coding.end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn a_body_is_unpacked_part_by_part() {
        let text = b"{\"task\": \"a\"}".repeat(1_000);
        let whole = packed(&text);
        let parts: Vec<&[u8]> = whole.chunks(7).collect();
        assert_eq!(unpacked(&parts, 1 << 20).unwrap(), text);
    }

    #[test]
    fn a_bomb_stops_where_the_limit_is() {
        let bomb = packed(&vec![0; 50 << 20]);
        assert_eq!(unpacked(&[&bomb], 1 << 20), Err(Misfit::TooLarge));
    }

    #[test]
    fn what_is_cut_off_or_no_gzip_is_broken() {
        let whole = packed(b"hello");
        assert_eq!(unpacked(&[&whole[..whole.len() - 5]], 100), Err(Misfit::Broken));
        assert_eq!(unpacked(&[b"hello, this is no gzip"], 100), Err(Misfit::Broken));
    }

    #[test]
    fn other_encodings_are_refused() {
        for name in ["br", "deflate", "zstd", "gzip, gzip", "compress"] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, name.parse().unwrap());
            assert!(Coding::of(&headers, 1).is_err(), "{name}");
        }
    }
}
