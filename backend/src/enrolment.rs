//! Gives a certificate to who has a token.

use std::sync::Arc;

use nightjar_proto::v1::{EnrolRequest, EnrolResponse, enrolment_server};
use tonic::{Request, Response, Status};

use crate::{
    ca::Authority,
    registry::{Registry, TokenError},
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
}

#[tonic::async_trait]
impl enrolment_server::Enrolment for Enrolment {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let EnrolRequest { token, csr_pem, host, version } = request.into_inner();
        let authority = self.authority.as_ref().ok_or_else(|| {
            Status::failed_precondition(
                "this backend has no authority of its own; ask its operator for a certificate",
            )
        })?;
        // Looked at before the token is used up.
        authority.sign(&csr_pem, "").map_err(|error| Status::invalid_argument(error.to_string()))?;
        let agent_id = self.registry.enrol(&token, &host, &version).map_err(|error| match error {
            TokenError::Unknown | TokenError::Expired => Status::permission_denied(error.to_string()),
            TokenError::Registry(_) => Status::unavailable(error.to_string()),
        })?;
        let signed =
            authority.sign(&csr_pem, &agent_id).map_err(|error| Status::internal(error.to_string()))?;
        tracing::info!("agent {agent_id} on {host} is enrolled");
        Ok(Response::new(EnrolResponse {
            agent_id,
            certificate_pem: signed.certificate_pem,
            ca_pem: signed.root_pem,
            expires: signed.expires,
        }))
    }
}
