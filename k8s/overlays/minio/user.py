"""Gives MinIO the user that pods work as: it reads and writes one bucket, and manages nothing.

It runs beside MinIO in its pod. The environment holds the root user's name and password (MINIO_ROOT_USER, MINIO_ROOT_PASSWORD), the
user's (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) and the bucket (BUCKET).
"""

import os
import signal
import sys
import time
from pathlib import Path

from minio import MinioAdmin
from minio.credentials import StaticProvider
from minio.error import MinioAdminException
from urllib3.exceptions import HTTPError

SERVER = os.environ.get("MINIO", "localhost:9000")
POLICY = "edm2"
READY = Path("/tmp/ready")  # noqa: S108
OBJECTS = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
BUCKETS = ["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"]


def policy(bucket: str) -> dict[str, object]:
    """All that the user may do, as S3 writes it."""
    allowed = [(BUCKETS, f"arn:aws:s3:::{bucket}"), (OBJECTS, f"arn:aws:s3:::{bucket}/*")]
    statements = [{"Effect": "Allow", "Action": actions, "Resource": [resource]} for actions, resource in allowed]
    return {"Version": "2012-10-17", "Statement": statements}


def make_user() -> None:
    """Make the user and what it may do, or bring both to what they should be. Raises MinioAdminException or HTTPError."""
    root = StaticProvider(os.environ["MINIO_ROOT_USER"], os.environ["MINIO_ROOT_PASSWORD"])
    admin, user = MinioAdmin(endpoint=SERVER, credentials=root, secure=False), os.environ["AWS_ACCESS_KEY_ID"]
    admin.policy_add(POLICY, policy=policy(os.environ["BUCKET"]))
    admin.user_add(user, os.environ["AWS_SECRET_ACCESS_KEY"])
    admin.policy_set(POLICY, user=user)


def main() -> None:
    """Do it as soon as MinIO answers, then wait to be ended: a pod's containers run as long as the pod."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        try:
            make_user()
            break
        except (MinioAdminException, HTTPError) as error:
            sys.stdout.write(f"MinIO does not take the user yet: {str(error)[:200]}\n")
            sys.stdout.flush()
            time.sleep(2)
    READY.touch()
    sys.stdout.write("MinIO has its user.\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main()
