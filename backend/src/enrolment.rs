//! Gives a certificate to who has a token, or one that is still good.

use std::sync::Arc;

use nightjar_proto::v1::{EnrolRequest, EnrolResponse, RenewRequest, enrolment_server};
use tonic::{Request, Response, Status};

use crate::{
    ca::{Authority, Signed},
    registry::{AdmissionError, Registry, TokenError},
    tls::Peer,
};

/// The service.
#[derive(Clone)]
pub struct Enrolment {
    registry: Arc<Registry>,
    /// None: the operator has certificates of their own.
    authority: Option<Arc<Authority>>,
}

// === impl Enrolment ===

impl Enrolment {
    /// Signs by `authority`.
    #[must_use]
    pub fn new(registry: Arc<Registry>, authority: Option<Arc<Authority>>) -> Self {
        Self { registry, authority }
    }

    fn authority(&self) -> Result<&Authority, Status> {
        self.authority.as_deref().ok_or_else(|| {
            Status::failed_precondition(
                "this backend has no authority of its own; ask its operator for a certificate",
            )
        })
    }

    /// Gives what was signed to an agent, once it is written when that ends.
    async fn give(&self, agent_id: String, signed: Signed) -> Result<Response<EnrolResponse>, Status> {
        let Signed { certificate_pem, root_pem, expires } = signed;
        let id = agent_id.clone();
        let certify = move |registry: &Registry| registry.certify(&id, expires.saturating_mul(1_000_000_000));
        let written = self.registry.aside(certify).await;
        written.map_err(|error| match error {
            AdmissionError::Registry(_) => Status::unavailable(error.to_string()),
            AdmissionError::Unknown(_) | AdmissionError::Revoked(_) => {
                Status::permission_denied(error.to_string())
            }
        })?;
        Ok(Response::new(EnrolResponse { agent_id, certificate_pem, ca_pem: root_pem, expires }))
    }
}

#[tonic::async_trait]
impl enrolment_server::Enrolment for Enrolment {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let EnrolRequest { token, csr_pem, host, version } = request.into_inner();
        let authority = self.authority()?;
        // Looked at before the token is used up.
        authority.sign(&csr_pem, "").map_err(|error| Status::invalid_argument(error.to_string()))?;
        let of_host = host.clone();
        let enrol = move |registry: &Registry| registry.enrol(&token, &of_host, &version);
        let agent_id = self.registry.aside(enrol).await.map_err(|error| match error {
            TokenError::Unknown | TokenError::Expired => Status::permission_denied(error.to_string()),
            TokenError::Registry(_) => Status::unavailable(error.to_string()),
        })?;
        let signed =
            authority.sign(&csr_pem, &agent_id).map_err(|error| Status::internal(error.to_string()))?;
        tracing::info!("agent {agent_id} on {host:?} is enrolled");
        self.give(agent_id, signed).await
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<EnrolResponse>, Status> {
        let authority = self.authority()?;
        let name = request.extensions().get::<Peer>().and_then(|peer| peer.name.clone());
        let agent_id = name.ok_or_else(|| {
            Status::unauthenticated("only who has a certificate can renew it; enrol by a token instead")
        })?;
        let signed = authority.sign(&request.into_inner().csr_pem, &agent_id);
        let signed = signed.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let response = self.give(agent_id.clone(), signed).await?;
        tracing::info!("the certificate of agent {agent_id} is renewed");
        Ok(response)
    }
}
