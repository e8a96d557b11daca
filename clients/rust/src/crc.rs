// SPDX-License-Identifier: Apache-2.0
//! zlib's CRC-32, eight bytes at a time (M. Kounavis, F. Berry, "Slicing-by-8", 2005).

const POLYNOMIAL: u32 = 0xEDB8_8320;
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (POLYNOMIAL * (crc & 1));
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut place = 256;
    while place < 8 * 256 {
        let before = tables[place / 256 - 1][place % 256];
        tables[place / 256][place % 256] = (before >> 8) ^ tables[0][(before & 255) as usize];
        place += 1;
    }
    tables
}

/// Return the checksum of more bytes, after those whose checksum is given; 0 for none.
pub(crate) fn crc32(before: u32, bytes: &[u8]) -> u32 {
    let mut crc = !before;
    let mut eights = bytes.chunks_exact(8);
    for eight in &mut eights {
        let mixed = u64::from_le_bytes(eight.try_into().expect("eight bytes")) ^ u64::from(crc);
        crc = (0..8).fold(0, |sum, place| {
            sum ^ TABLES[7 - place][(mixed >> (8 * place) & 255) as usize]
        });
    }
    for &byte in eights.remainder() {
        crc = (crc >> 8) ^ TABLES[0][((crc ^ u32::from(byte)) & 255) as usize];
    }
    !crc
}
