# An MCP server on standard streams. Its arguments say what it does besides.
answer() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"; }
for how in "$@"; do
    case $how in
        chatty) echo "Server started"; echo '{"half":'; printf '\377\n' ;;
        deaf) sleep 1000; exit ;;
        flooding) while :; do echo '{"jsonrpc":"2.0","method":"notifications/x","params":{"x":"'$line'"}}'; line=${line}x; done ;;
        stubborn) trap '' TERM HUP ;;
        forking) (trap '' TERM HUP; exec sleep 1000) & echo "child $!" >&2 ;;
        leaving) setsid sleep 1000 & echo "child $!" >&2 ;;
        mute) mute=mute ;;
        modern) modern=modern ;;
        strict) strict=strict ;;
        asking) echo '{"jsonrpc":"2.0","id":1,"method":"roots/list"}' ;;
        telling) echo "token: ${MCP_WS_BEARER-none}" >&2 ;;
        *) echo "$how" >&2 ;;
    esac
done
while IFS= read -r line; do
    id=$(printf '%s' "$line" | sed -n 's/.*"id":\([^,}]*\).*/\1/p')
    case $strict$line in
        strict*'"initialize"'*) strict=half ;;
        half*'"notifications/initialized"'*) strict= ;;
        strict*'"id":'* | half*'"id":'*) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32602,"message":"not initialized"}}\n' "$id"; continue ;;
    esac
    case $line in
        *'"root":'*) printf '{"jsonrpc":"2.0","method":"notifications/message","params":{"got":%s}}\n' "$line"; continue ;;
    esac
    case $modern$line in
        modern*'"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"unknown"}}\n' "$id"; continue ;;
        modern*'"server/discover"'*) answer '{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":0,"cacheScope":"private"}'; continue ;;
    esac
    case $mute$line in
        mute*'"initialize"'* | mute*'"server/discover"'*) ;;
        mute*) continue ;;
    esac
    case $line in
        *'"initialize"'*) answer '{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}' ;;
        *'"server/discover"'*) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"unknown"}}\n' "$id" ;;
        *'"name":"hang"'*) echo "hanging" >&2 ;;
        *'"tools/list"'*) answer '{"tools":[{"name":"pid","description":"The process","inputSchema":{"type":"object","properties":{"a":{}},"required":["a"]}},{"name":"die","inputSchema":{"type":"object"}},{"name":"fail","inputSchema":{"type":"object"}},{"name":"refuse","inputSchema":{"type":"object"}},{"name":"hang","inputSchema":{"type":"object"}},{"name":"count","inputSchema":{"type":"object","properties":{"gate":{}},"required":["gate"]}}]}' ;;
        *'"name":"pid"'*) answer '{"content":[{"type":"text","text":"'$$'"}]}' ;;
        *'"name":"fail"'*) answer '{"content":[{"type":"text","text":"it failed"}],"isError":true}' ;;
        *'"name":"count"'*)
            token=$(printf '%s' "$line" | sed -n 's/.*"progressToken":\([^,}]*\).*/\1/p')
            gate=$(printf '%s' "$line" | sed -n 's/.*"gate":"\([^"]*\)".*/\1/p')
            for progress in '1' '2,"message":"half\ndone"'; do
                printf '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"total":3,"progress":%s}}\n' "$token" "$progress"
            done
            read -r _ <"$gate"
            answer '{"content":[{"type":"text","text":"counted"}]}' ;;
        *'"name":"shut"'*)
            gate=$(printf '%s' "$line" | sed -n 's/.*"gate":"\([^"]*\)".*/\1/p')
            exec <&-
            echo "shut" >&2
            read -r _ <"$gate"
            answer '{}'
            exit ;;
        *'"name":"die"'*) echo "last words" >&2; exit 7 ;;
        *'"ping"'*) answer '{}' ;;
        *'"id":'*) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"unknown"}}\n' "$id" ;;
    esac
done
case $* in *stubborn*) while :; do sleep 1; done ;; esac
