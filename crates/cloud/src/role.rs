//! Temporary credentials of a CVM instance's role, from the metadata service.
//!
//! Address and answers are those that the vendor's SDKs know (Go, Python, Node).

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use url::Url;

use crate::classify::one_line;
use crate::credentials::{Credentials, CredentialsError};
use crate::transport;

/// The list of the instance's roles; a role's credentials are one step below.
pub(crate) const METADATA: &str = "http://metadata.tencentyun.com/latest/meta-data/cam/security-credentials/";

/// The metadata service is one hop away. A longer wait means that this is not a CVM.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(5);

/// More than any of its answers.
const LARGEST_ANSWER: u64 = 64 * 1024;

const ORIGIN: &str = "the CVM's role";

/// Reads the credentials of the instance's role; `list` is [`METADATA`], or what stands in for it.
pub(crate) async fn read(list: &Url) -> Result<Credentials, CredentialsError> {
    let client =
        transport::plain_client(CONNECT_TIMEOUT).map_err(|error| absent(transport::chain(&error)))?;
    let roles = get(&client, list.clone()).await?;
    let role = roles.lines().next().unwrap_or_default().trim();
    if role.is_empty() {
        return Err(absent("this instance has no role"));
    }
    let mut url = list.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push(role);
    }
    from_answer(&get(&client, url).await?)
}

async fn get(client: &reqwest::Client, url: Url) -> Result<String, CredentialsError> {
    let answer = tokio::time::timeout(TIMEOUT, async {
        let mut answer = client.get(url).send().await.map_err(|error| transport::chain(&error))?;
        let body =
            transport::read_body(&mut answer, LARGEST_ANSWER).await.map_err(|error| error.to_string())?;
        Ok::<_, String>((answer.status(), body))
    });
    match answer.await {
        Err(_) => Err(absent("the metadata service does not answer")),
        Ok(Err(cause)) => Err(absent(format!("the metadata service cannot be asked: {cause}"))),
        Ok(Ok((StatusCode::NOT_FOUND, _))) => Err(absent("this instance has no role")),
        Ok(Ok((status, _))) if !status.is_success() => {
            Err(absent(format!("the metadata service answers HTTP {status}")))
        }
        Ok(Ok((_, body))) => Ok(String::from_utf8_lossy(&body).into_owned()),
    }
}

fn absent(cause: impl Into<String>) -> CredentialsError {
    CredentialsError::Absent {
        origin: ORIGIN.to_owned(),
        cause: cause.into(),
        next_step: "run on a CVM instance that has a CAM role, or choose another source of credentials",
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleCredentials {
    code: Option<String>,
    tmp_secret_id: Option<String>,
    tmp_secret_key: Option<String>,
    token: Option<String>,
    expired_time: Option<i64>,
}

fn from_answer(answer: &str) -> Result<Credentials, CredentialsError> {
    let unusable = |cause: String| CredentialsError::Unusable { origin: ORIGIN.to_owned(), cause };
    // The JSON reader's message could quote the answer, which holds a key.
    let role: RoleCredentials = serde_json::from_str(answer)
        .map_err(|_| unusable("the metadata service's answer is not the expected JSON".to_owned()))?;
    if let Some(code) = role.code.filter(|code| code != "Success") {
        return Err(unusable(format!("the metadata service says {}", one_line(&code))));
    }
    let (Some(id), Some(key), Some(token), Some(expires_at)) =
        (role.tmp_secret_id, role.tmp_secret_key, role.token, role.expired_time)
    else {
        return Err(unusable("the metadata service's answer lacks id, key, token or expiry".to_owned()));
    };
    let credentials = Credentials::new(ORIGIN.to_owned(), id, key, Some(token))?;
    Ok(Credentials { expires_at: Some(expires_at), ..credentials })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_s_answer_is_read() {
        let found = from_answer(
            r#"{"TmpSecretId":"id","TmpSecretKey":"key","ExpiredTime":1615590047,
                "Expiration":"2021-03-12T23:00:47Z","Token":"t","Code":"Success"}"#,
        )
        .unwrap();
        assert_eq!((found.secret_id.as_str(), found.secret_key.expose()), ("id", "key"));
        assert_eq!(found.token.unwrap().expose(), "t");
        assert_eq!(found.expires_at, Some(1_615_590_047));
    }

    #[test]
    fn other_answers_are_named_and_not_shown() {
        for (answer, words) in [
            ("<html>hush</html>", "not the expected JSON"),
            (r#"["hush"]"#, "not the expected JSON"),
            (r#"{"Code":"Failed","TmpSecretKey":"hush"}"#, "says Failed"),
            (
                r#"{"TmpSecretId":"id","TmpSecretKey":"hush","Token":"t","Code":"Success"}"#,
                "lacks id, key, token or expiry",
            ),
            (r#"{"TmpSecretId":"id","TmpSecretKey":"hu sh","Token":"t","ExpiredTime":1}"#, "at character 3"),
        ] {
            let error = from_answer(answer).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("hush"), "{error}");
        }
    }
}
