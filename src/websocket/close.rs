//! The Close frame that Flipgate sends to a client.

/// The status code of a Close frame that an endpoint may send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CloseCode(u16);

/// A number that is not the code of a Close frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0} is not a status code of a Close frame: 1000 to 4999, without 1004, 1005, 1006 and 1015"
)]
pub struct InvalidCloseCode(pub u64);

/// The length of the frame of [`close_frame`].
pub const CLOSE_FRAME_LENGTH: usize = 4;

// === impl CloseCode ===

impl CloseCode {
    /// Service Restart: clients come back after some seconds. Registered by the IANA for section 7.4.
    pub const SERVICE_RESTART: Self = Self(1012);

    /// The code of this number.
    ///
    /// # Errors
    ///
    /// [`InvalidCloseCode`] for a number that must not be sent (sections 7.4.1 and 7.4.2).
    pub fn new(number: u64) -> Result<Self, InvalidCloseCode> {
        match u16::try_from(number) {
            // 1004 is reserved; 1005, 1006 and 1015 stand for frames that did not come.
            Ok(1004 | 1005 | 1006 | 1015) => Err(InvalidCloseCode(number)),
            Ok(code @ 1000..=4999) => Ok(Self(code)),
            _ => Err(InvalidCloseCode(number)),
        }
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

/// A Close frame of a server (section 5.5.1): not masked, with a code and without a reason.
#[must_use]
pub fn close_frame(code: CloseCode) -> [u8; CLOSE_FRAME_LENGTH] {
    let [high, low] = code.0.to_be_bytes();
    [0x88, 2, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_close_frame_is_final_unmasked_and_has_only_a_code() {
        assert_eq!(close_frame(CloseCode::SERVICE_RESTART), [0x88, 0x02, 0x03, 0xf4]);
    }

    #[test]
    fn codes_that_must_not_be_sent_are_refused() {
        for number in [1000, 1001, 1003, 1007, 1012, 1013, 1014, 3000, 4999] {
            assert_eq!(CloseCode::new(number).map(|it| u64::from(it.number())), Ok(number));
        }
        for number in [0, 999, 1004, 1005, 1006, 1015, 5000, 65_535, 65_536 + 1012, u64::MAX] {
            assert_eq!(CloseCode::new(number), Err(InvalidCloseCode(number)));
        }
    }
}
