//! From an endpoint as it is stored to one that can be sent to.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidings::retry::{RetryPolicy, Schedule};
use tidings::signing::{Secret, Signer, StandardSigner, TimestampedSigner};
use tidings::{Classifier, LaneConfig, Sender};

use crate::encryption::EncryptionKeys;
use crate::settings::{EndpointSettings, SignatureScheme};
use crate::{Endpoint, Error, Format, Options};

/// What the options say of every endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    pub(crate) schedule: Vec<Duration>,
    pub(crate) timeout: Duration,
    pub(crate) sender: Sender,
    pub(crate) encryption: EncryptionKeys,
    lane: LaneConfig,
}

/// An endpoint, ready to be sent to.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) endpoint: tidings::Endpoint,
    pub(crate) lane: LaneConfig,
    pub(crate) format: Format,
    pub(crate) has_rate_limit: bool,
    /// When to try again after a failure.
    pub(crate) retry: Arc<RetryPolicy>,
    /// How many secrets sign. Of one revision it only changes when some have expired.
    pub(crate) secrets: usize,
}

impl Defaults {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        options.check()?;
        let sender = match &options.sender {
            Some(sender) => sender.clone(),
            None => Sender::builder().build()?,
        };
        Ok(Self {
            schedule: options.schedule.clone(),
            timeout: options.timeout,
            sender,
            encryption: options.encryption.clone(),
            lane: options.lane_of_endpoint(),
        })
    }

    /// The wait before the first attempt.
    pub(crate) fn first_wait(&self) -> Duration {
        self.schedule.first().copied().unwrap_or_default()
    }

    /// Checks settings, and writes the URL as it is called.
    pub(crate) fn normalize(&self, settings: &mut EndpointSettings) -> Result<(), Error> {
        settings.check_new()?;
        settings.check()?;
        // Headers must leave room for those of the signatures.
        let target = self.describe(settings, &[Secret::generate()])?.build();
        let target = target.map_err(|error| match Error::from(error) {
            Error::InvalidSetting { field, expected } if field == "headers" => {
                self.name_header(settings, expected)
            }
            error => error,
        })?;
        self.sender.address_policy().check_url(target.url())?;
        settings.url = target.url().to_string();
        Ok(())
    }

    /// Says which of several headers is wrong, if one is by itself.
    fn name_header(&self, settings: &EndpointSettings, expected: String) -> Error {
        let is_wrong = |(name, value): &(&String, &String)| {
            let alone = EndpointSettings {
                headers: [((*name).clone(), (*value).clone())].into(),
                ..settings.clone()
            };
            let description = self.describe(&alone, &[Secret::generate()]);
            description.is_ok_and(|description| description.build().is_err())
        };
        match settings.headers.iter().find(is_wrong) {
            Some((name, _)) => Error::invalid(format!("headers.{name}"), expected),
            None => Error::invalid("headers", expected),
        }
    }

    /// Describes an endpoint to the sender, or says why it cannot be sent to.
    pub(crate) fn target(&self, endpoint: &Endpoint, now: Timestamp) -> Result<Target, Error> {
        let settings = &endpoint.settings;
        settings.check()?;
        let secrets = endpoint.signing_secrets(now)?;
        let timeout = settings.timeout_of(&endpoint.owner);
        let description = self.describe(settings, &secrets)?;
        // The sender checks the address at each attempt: settings of another start may allow it.
        let target = description
            .timeout(timeout.unwrap_or(self.timeout))
            .build()?;
        let mut lane = self.lane.clone();
        if let Some(user) = endpoint.owner.user() {
            // However many endpoints of a user stall, they harm only each other.
            lane = lane.with_group(user.as_str());
        }
        if let Some(rate) = settings.rate_limit {
            lane = lane.with_rate_limit(rate.get(), Duration::from_secs(1));
        }
        Ok(Target {
            endpoint: target,
            lane,
            format: settings.format,
            has_rate_limit: settings.rate_limit.is_some(),
            retry: Arc::new(self.retry(settings)?),
            secrets: secrets.len(),
        })
    }

    /// When to try again after a failure.
    pub(crate) fn retry(&self, settings: &EndpointSettings) -> Result<RetryPolicy, Error> {
        let schedule = settings.schedule.as_ref().unwrap_or(&self.schedule);
        let rest = Schedule::new(schedule.iter().skip(1).copied())?;
        Ok(RetryPolicy::new(rest))
    }

    fn describe(
        &self,
        settings: &EndpointSettings,
        secrets: &[Secret],
    ) -> Result<tidings::EndpointBuilder, Error> {
        let mut description = tidings::Endpoint::builder(&settings.url)
            .classifier(Classifier::standard_webhooks())
            .timeout(settings.timeout.unwrap_or(self.timeout));
        for (name, value) in &settings.headers {
            description = description.header(name, value);
        }
        for signer in signers(&settings.signatures, secrets)? {
            description = description.signer(signer);
        }
        Ok(description)
    }
}

/// Most deliveries of a lane in memory.
pub(crate) const MAX_QUEUED: usize = 1024;

/// One signer for each scheme.
fn signers(schemes: &[SignatureScheme], secrets: &[Secret]) -> Result<Vec<Signer>, Error> {
    let unsigned = || Error::invalid("secret", "a secret that signs");
    let signer = |scheme: &SignatureScheme| -> Result<Signer, Error> {
        match scheme {
            SignatureScheme::Standard => {
                let signer = StandardSigner::new(secrets.iter().cloned());
                Ok(signer.ok_or_else(unsigned)?.into())
            }
            SignatureScheme::Timestamped => {
                // The receiver's key is the text of the secret, as it was shown.
                let key = secrets.first().ok_or_else(unsigned)?.expose();
                let signer = TimestampedSigner::new(key.as_bytes().to_vec());
                Ok(signer.map_err(|_| unsigned())?.into())
            }
        }
    };
    schemes.iter().map(signer).collect()
}

#[cfg(test)]
mod tests {
    use tidings_notify::UserId;

    use super::*;
    use crate::endpoint::{SecretEntry, Secrets};
    use crate::{EndpointId, MAX_USER_TIMEOUT, Owner};

    #[test]
    fn an_endpoint_of_a_user_that_is_stored_with_an_hour_waits_for_a_minute() {
        let defaults = Defaults::new(&Options::default()).unwrap();
        let hour = Duration::from_secs(3600);
        let of_user = Owner::User(UserId::new("anna").unwrap());
        for (owner, timeout, expected) in [
            (Owner::Operator, Some(hour), hour),
            (of_user.clone(), Some(hour), MAX_USER_TIMEOUT),
            (of_user, None, defaults.timeout),
        ] {
            let mut settings = EndpointSettings::new("https://example.com");
            settings.timeout = timeout;
            let endpoint = Endpoint {
                id: EndpointId::random(),
                owner,
                settings,
                enabled: true,
                disabled_because: None,
                created_at: Timestamp::UNIX_EPOCH,
                secrets: Secrets::Known(vec![SecretEntry {
                    secret: Secret::generate(),
                    until: None,
                }]),
            };
            let target = defaults.target(&endpoint, Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(target.endpoint.timeout(), expected);
        }
    }
}
