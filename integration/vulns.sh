#!/bin/bash
# Asks Go's vulnerability database whether the code calls something that is known to be vulnerable, with the govulncheck that go.mod pins.
# VULNDB is another database, as file:///path or a mirror's https:// URL; arguments are packages, all unless there are some.
#
# A known vulnerability that the code reaches is an error. A database that cannot be reached is one line of warning and no error, with
# CI=true too: whether this tree is sound must not depend on another's server being up, and a finding is new because the database
# changed, not the tree. Run it again where the network allows before a release.
set -euo pipefail
cd "$(dirname "$0")/.."

status=0
out=$(go tool govulncheck ${VULNDB:+-db "$VULNDB"} "${@:-./...}" 2>&1) || status=$?
# Exit status 1 has many causes. This text is of the one before anything was judged: no answer, or one that is not 200.
if [ "$status" = 1 ] && why=$(grep -E '^govulncheck: fetching vulnerabilities: (Get|HTTP GET) ' <<<"$out"); then
  echo "warning: known vulnerabilities were not looked for: ${why#govulncheck: fetching vulnerabilities: }" >&2
  exit 0
fi
[ "$status" = 0 ] || echo "$out"
exit "$status"
