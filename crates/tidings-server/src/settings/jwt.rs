//! The settings by which tokens of users are verified, and made for trying out.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use url::Url;

use super::Unshown;
use crate::small_file;

/// How tokens of users are verified.
#[derive(Debug, Clone, Default, Args)]
#[non_exhaustive]
pub struct JwtSettings {
    /// What tokens are made with, too.
    #[command(flatten)]
    pub signing: JwtSigning,

    /// PEM file with public keys that verify tokens: RSA, P-256 or Ed25519, for RS256, ES256 or `EdDSA`; may be
    /// given several times, or several separated by commas
    #[arg(
        long = "jwt-public-key",
        env = "TIDINGS_JWT_PUBLIC_KEY",
        value_name = "FILE",
        value_delimiter = ',',
        value_parser = path_in_list
    )]
    pub public_keys: Vec<PathBuf>,

    /// JSON Web Key Set with the public keys that verify tokens: a file, or a URL of `http` or `https`. It is
    /// loaded again every 5 minutes, and when a token names an unknown key; redirects are not followed
    #[arg(long = "jwt-jwks", env = "TIDINGS_JWT_JWKS", value_name = "FILE|URL",
          hide_env_values = true, value_parser = Unshown(JwksSource::from_str))]
    pub jwks: Option<JwksSource>,

    /// Cookie from which a token is taken, if a request has it nowhere else
    #[arg(long = "jwt-cookie", env = "TIDINGS_JWT_COOKIE", value_name = "NAME", value_parser = cookie_name)]
    pub cookie: Option<String>,
}

impl JwtSettings {
    /// Whether any key is given.
    pub(crate) fn has_keys(&self) -> bool {
        self.signing.has_secret() || !self.public_keys.is_empty() || self.jwks.is_some()
    }
}

/// What tokens are made with.
#[derive(Debug, Clone, Default, Args)]
#[non_exhaustive]
pub struct JwtSigning {
    /// Secret that signs and verifies tokens of users by HS256, at least 32 bytes
    #[arg(long = "jwt-secret", env = "TIDINGS_JWT_SECRET", value_name = "SECRET",
          hide_env_values = true, value_parser = Unshown(JwtSecret::from_str))]
    pub secret: Option<JwtSecret>,

    /// File with this secret; a line end after it does not count
    #[arg(
        long = "jwt-secret-file",
        env = "TIDINGS_JWT_SECRET_FILE",
        value_name = "FILE"
    )]
    pub secret_file: Option<PathBuf>,

    /// Issuer that tokens must have (`iss`)
    #[arg(
        long = "jwt-issuer",
        env = "TIDINGS_JWT_ISSUER",
        value_name = "ISSUER",
        value_parser = not_empty
    )]
    pub issuer: Option<String>,

    /// Audience that tokens must have (`aud`); without it, tokens for an audience are refused
    #[arg(
        long = "jwt-audience",
        env = "TIDINGS_JWT_AUDIENCE",
        value_name = "AUDIENCE",
        value_parser = not_empty
    )]
    pub audience: Option<String>,
}

impl JwtSigning {
    fn has_secret(&self) -> bool {
        self.secret.is_some() || self.secret_file.is_some()
    }

    /// The secret, from the file if it is there.
    pub(crate) fn read_secret(&self) -> Result<Option<JwtSecret>, UnusableSecret> {
        let secret = match (&self.secret, &self.secret_file) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err(UnusableSecret::Twice),
            (Some(secret), None) => secret.clone(),
            (None, Some(path)) => JwtSecret::read(path)?,
        };
        Ok(Some(secret))
    }
}

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableSecret {
    /// The secret and a file with it are given.
    #[error("--jwt-secret: not allowed beside --jwt-secret-file")]
    Twice,
    /// The secret in the file can be guessed.
    #[error("--jwt-secret-file: expected at least {} bytes in {}", JwtSecret::MIN_LENGTH, path.display())]
    ShortFile {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("--jwt-secret-file: cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system reported.
        source: std::io::Error,
    },
}

/// The secret of HS256. `Debug` does not show it.
#[derive(Clone)]
pub struct JwtSecret(Vec<u8>);

impl JwtSecret {
    /// As many bytes as the hash has: a shorter secret is not allowed by RFC 7518.
    const MIN_LENGTH: usize = 32;

    /// The largest file with a secret.
    const MAX_FILE_BYTES: u64 = 4096;

    fn read(path: &Path) -> Result<Self, UnusableSecret> {
        let read = small_file::read(path, Self::MAX_FILE_BYTES);
        let mut secret = read.map_err(|source| UnusableSecret::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        while secret
            .pop_if(|last| matches!(last, b'\n' | b'\r'))
            .is_some()
        {}
        let secret = Self(secret);
        if secret.is_short() {
            let path = path.to_owned();
            return Err(UnusableSecret::ShortFile { path });
        }
        Ok(secret)
    }

    fn is_short(&self) -> bool {
        self.0.len() < Self::MIN_LENGTH
    }

    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for JwtSecret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let secret = Self(text.into());
        if secret.is_short() {
            return Err(format!("expected at least {} bytes", Self::MIN_LENGTH));
        }
        Ok(secret)
    }
}

impl fmt::Debug for JwtSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Where a JSON Web Key Set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksSource {
    /// In a file.
    File(PathBuf),
    /// At a URL of `http` or `https`.
    Url(Url),
}

impl FromStr for JwksSource {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a file, or a URL of http or https";
        if !text.contains("://") {
            let is_empty = text.is_empty();
            return if is_empty {
                Err(EXPECTED)
            } else {
                Ok(Self::File(text.into()))
            };
        }
        let url = Url::parse(text).map_err(|_| EXPECTED)?;
        if matches!(url.scheme(), "http" | "https") {
            Ok(Self::Url(url))
        } else {
            Err(EXPECTED)
        }
    }
}

/// Shows no password and no query, which may be secret.
impl fmt::Display for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(url) => write!(f, "{}{}", url.origin().ascii_serialization(), url.path()),
        }
    }
}

/// One path of a list, in which a blank may follow the comma.
fn path_in_list(text: &str) -> Result<PathBuf, &'static str> {
    match text.trim() {
        "" => Err("expected a file"),
        path => Ok(path.into()),
    }
}

/// An empty value would refuse every token, and most likely comes from a variable that is not set.
fn not_empty(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        Err("expected at least one character")
    } else {
        Ok(text.to_owned())
    }
}

/// The characters that RFC 6265 allows.
fn cookie_name(text: &str) -> Result<String, &'static str> {
    let is_allowed = |c: char| c.is_ascii_graphic() && !r#"()<>@,;:\"/[]?={}"#.contains(c);
    if !text.is_empty() && text.chars().all(is_allowed) {
        Ok(text.to_owned())
    } else {
        Err("expected the name of a cookie")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_is_a_file_or_a_url_and_shows_no_password() {
        let file = JwksSource::from_str("keys.json").unwrap();
        assert_eq!(file, JwksSource::File("keys.json".into()));
        let url = JwksSource::from_str("https://user:pass@id.example.com/keys?key=pass").unwrap();
        assert_eq!(url.to_string(), "https://id.example.com/keys");
        for text in ["", "ftp://id.example.com/keys", "https://"] {
            JwksSource::from_str(text).unwrap_err();
        }
    }

    #[test]
    fn a_secret_is_long_enough_and_in_one_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let long = "0123456789abcdef0123456789abcdef";
        std::fs::write(&path, format!("{long}\r\n")).unwrap();
        let given = |secret: Option<&str>, file: Option<&Path>| {
            let signing = JwtSigning {
                secret: secret.map(|secret| secret.parse().unwrap()),
                secret_file: file.map(Path::to_owned),
                ..JwtSigning::default()
            };
            signing.read_secret()
        };
        assert!(given(None, None).unwrap().is_none());
        let secret = given(Some(long), None).unwrap().unwrap();
        assert_eq!(format!("{secret:?}"), "[redacted]");
        let read = given(None, Some(&path)).unwrap().unwrap();
        assert_eq!(read.expose(), secret.expose());
        let twice = given(Some(long), Some(&path)).unwrap_err();
        assert!(matches!(twice, UnusableSecret::Twice));
        let short = long[1..].parse::<JwtSecret>().unwrap_err();
        assert_eq!(short, "expected at least 32 bytes");
        let empty = folder.path().join("empty");
        std::fs::write(&empty, "\n").unwrap();
        let short = given(None, Some(&empty)).unwrap_err().to_string();
        let says = format!(
            "--jwt-secret-file: expected at least 32 bytes in {}",
            empty.display()
        );
        assert_eq!(short, says);
        let missing = given(None, Some(folder.path())).unwrap_err();
        assert!(matches!(missing, UnusableSecret::Unreadable { .. }));
    }
}
