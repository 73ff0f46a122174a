use std::io::Write;
use std::time::Duration;

use clap::Args;
use tidings_notify::UserId;

use super::CommandError;
use crate::access::NewToken;
use crate::settings::jwt::JwtSigning;
use crate::settings::{DAY, time};

/// Makes a token of a user, for trying out.
#[derive(Debug, Args)]
pub(super) struct Token {
    /// The user whose token it is
    #[arg(value_name = "USER")]
    user: UserId,

    /// How long it is valid, up to 365d
    #[arg(long = "for", default_value = "1h", value_name = "DURATION", value_parser = time(1, 365 * DAY))]
    valid: Duration,

    /// Also lets the user manage their webhook endpoints
    #[arg(long)]
    endpoints: bool,

    #[command(flatten)]
    signing: JwtSigning,
}

impl Token {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let secret = self.signing.read_secret()?;
        let secret = secret.ok_or(
            "--jwt-secret: expected the secret of the server, also as TIDINGS_JWT_SECRET or by --jwt-secret-file",
        )?;
        let mut token = NewToken::new(&self.user, self.valid)
            .with_issuer(self.signing.issuer.as_deref())
            .with_audience(self.signing.audience.as_deref());
        if self.endpoints {
            token = token.with_endpoints();
        }
        writeln!(std::io::stdout(), "{}", token.sign(&secret)?)?;
        Ok(())
    }
}
