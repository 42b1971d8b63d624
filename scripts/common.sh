# What scripts/kafka and scripts/s3 share: servers that run on Java, fetched once
# with Maven. Sourced, with SCRIPT set to the name that messages begin with.
# shellcheck shell=bash

readonly CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/tally99"
readonly DEPENDENCY_PLUGIN=org.apache.maven.plugins:maven-dependency-plugin:3.8.1

say() { echo "$SCRIPT: $*" >&2; }
die() { say "$*"; exit 1; }
one_line() { "$@" | tr '\n' ' '; }

java_bin() {
    if [ -n "${JAVA_HOME:-}" ] && [ -x "$JAVA_HOME/bin/java" ]; then
        echo "$JAVA_HOME/bin/java"
    else
        command -v java || true
    fi
}

# 17 for Java 17; nothing where there is no Java that works.
java_major() {
    local java
    java=$(java_bin)
    [ -n "$java" ] || return 0
    "$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1
}

# Names what is missing to fetch and run a server, one name a line. Each script
# says by itself whether it `is_fetched`.
missing_tools() {
    local major
    major=$(java_major)
    [ "${major:-0}" -ge 17 ] || echo "java"
    is_fetched || command -v mvn >/dev/null || echo "mvn"
    command -v ps >/dev/null || echo "ps"
}

need_tools() {
    local missing
    missing=$(one_line missing_tools)
    [ -z "$missing" ] || die "missing: ${missing% } (Java must be 17 or newer).
  Debian, Ubuntu: apt-get install openjdk-17-jre-headless maven procps
  macOS:          brew install openjdk@17 maven, then set JAVA_HOME to that Java"
}

# fetch_jars NAME FOLDER: fetches into the folder what the <dependencies> that
# come on standard input need to run.
fetch_jars() {
    local name=$1 libs=$2 dependencies work
    need_tools
    if is_fetched; then return; fi
    dependencies=$(cat)
    say "fetching $name from Maven Central"
    mkdir -p "$CACHE"
    work=$(mktemp -d "$CACHE/fetch.XXXXXX")
    # shellcheck disable=SC2064 # the folder of now, not of then
    trap "rm -rf '$work'" EXIT
    cat >"$work/pom.xml" <<END
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tally99</groupId>
  <artifactId>jars</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
$dependencies
</project>
END
    mvn --batch-mode --no-transfer-progress --quiet --strict-checksums -Dstyle.color=never \
        --file "$work/pom.xml" "$DEPENDENCY_PLUGIN:copy-dependencies" \
        -DincludeScope=runtime -DoutputDirectory="$work/libs" </dev/null >"$work/mvn.log" 2>&1 || {
        tail -n 20 "$work/mvn.log" >&2
        die "Maven could not fetch $name; its last words are above"
    }
    # One rename puts it in place. Where another fetch was quicker, mv puts ours
    # inside theirs instead, and it is taken out again: both are complete.
    mv "$work/libs" "$work/${work##*/}"
    mv "$work/${work##*/}" "$libs"
    rm -rf "${libs:?}/${work##*/}" "$work"
    trap - EXIT
    is_fetched || die "$libs is damaged: delete it and fetch again"
}

# Whether something accepts connections there.
is_listening() { (exec 4<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Sets FREE_PORT to a port that nothing listens on, below those that the system
# hands to outgoing connections, and to another one each time.
TAKEN_PORTS=""
take_free_port() {
    while :; do
        FREE_PORT=$((20000 + RANDOM % 12000))
        case " $TAKEN_PORTS " in *" $FREE_PORT "*) continue ;; esac
        is_listening "$FREE_PORT" || break
    done
    TAKEN_PORTS="$TAKEN_PORTS $FREE_PORT"
}
