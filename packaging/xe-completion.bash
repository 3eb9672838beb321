# Completion of `xe` for bash: commands, the parameters of a command, and values where the host can tell them.
# Copy to /usr/share/bash-completion/completions/xe.
#
# Everything is asked of the host that the command line names; nothing is kept but the list of commands.

_xe_ask() {
    command xe "$@" "${_xe_where[@]}" 2>/dev/null </dev/null
}

# The options that say which host is asked, in _xe_where.
_xe_connection() {
    _xe_where=()
    local word value=
    for word in "$@"; do
        if [[ -n $value ]]; then
            _xe_where+=("$value" "$word")
            value=
            continue
        fi
        case $word in
            -s | -h | -p | -u | -pw | -pwf) value=$word ;;
            --nossl | server=* | port=* | username=* | password=* | passwordfile=*) _xe_where+=("$word") ;;
        esac
    done
}

# The commands of the host, in _xe_known.
_xe_learn() {
    local key="${_xe_where[*]}"
    if [[ -z $_xe_known || $_xe_known_of != "$key" ]]; then
        _xe_known=$(_xe_ask help --all --minimal)
        _xe_known_of=$key
    fi
}

# The first values of records, each on a line; a comma within a value has a backslash before it, as has a backslash.
_xe_list() {
    _xe_ask "$@" --minimal | sed -e 's/\\\\/\x01/g' -e 's/\\,/\x02/g' -e 's/,/\n/g' -e 's/\x02/,/g' -e 's/\x01/\\/g'
}

# The parameters of a command, each with what follows it.
_xe_parameters() {
    local line name
    while IFS= read -r line; do
        case $line in
            *"reqd params"*:* | *"optional params"*:*)
                line=${line#*:}
                for name in ${line//,/ }; do
                    case $name in
                        '<vm-selectors>') printf '%s\n' vm= uuid= power-state= name-label= --multiple ;;
                        '<host-selectors>') printf '%s\n' host= uuid= --multiple ;;
                        '<sr-selectors>') printf '%s\n' sr= uuid= --multiple ;;
                        '<'*) ;;
                        force | multiple | all | live | paused | online | metadata) printf -- '--%s\n' "$name" ;;
                        *:) printf '%s\n' "$name" ;;
                        *) printf '%s=\n' "$name" ;;
                    esac
                done
                ;;
        esac
    done < <(_xe_ask help "$1")
    printf '%s\n' --minimal
}

# The class of records whose uuids a parameter of a command takes.
_xe_class() {
    local class=${1#diagnostic-}
    case $2 in
        uuid)
            _xe_learn
            [[ $class == console ]] && class=vm-
            while [[ $class == *-* ]]; do
                class=${class%-*}
                if [[ ,$_xe_known, == *",$class-param-list,"* ]]; then
                    printf '%s' "$class"
                    return
                fi
            done
            ;;
        into-vdi-uuid | base-vdi-uuid | vdi-from-uuid | vdi-to-uuid) printf vdi ;;
        suspend-VDI-uuid) printf vdi ;;
        *-uuids) printf '%s' "${2%-uuids}" ;;
        *-uuid) printf '%s' "${2%-uuid}" ;;
        vm | host | sr | template) printf '%s' "$2" ;;
    esac
}

# The fields of a record that a command can work on.
_xe_fields() {
    local command=$1 uuid=$2 suffix
    case $command in
        *-param-set) suffix='\( RW\)|\(MRW\)' ;;
        *-param-add | *-param-remove) suffix='\(SRW\)|\(MRW\)' ;;
        *-param-clear) suffix='\( RW\)|\(SRW\)|\(MRW\)' ;;
        *) suffix='\(' ;;
    esac
    [[ -n $uuid ]] || uuid=$(_xe_ask "${command%%-param-*}-list" --minimal)
    _xe_ask "${command%%-param-*}-param-list" "uuid=${uuid%%,*}" | grep -E "$suffix" | sed -E 's/^ *([^ ]+) .*/\1/'
}

_xe_values() {
    local command=$1 name=$2 uuid=$3 class
    case $name in
        power-state) printf '%s\n' halted paused running suspended ;;
        param-name) _xe_fields "$command" "$uuid" ;;
        params)
            printf 'all\n'
            _xe_fields "${command%-list}-param-get" ''
            ;;
        type)
            case $command in
                vbd-*) printf '%s\n' Disk CD Floppy ;;
                vdi-*) printf '%s\n' user system ;;
                sr-*) _xe_list sm-list params=type ;;
            esac
            ;;
        mode)
            case $command in
                vbd-*) printf '%s\n' RO RW ;;
                pif-reconfigure-ip) printf '%s\n' none dhcp static ;;
                bond-*) printf '%s\n' balance-slb active-backup lacp ;;
            esac
            ;;
        class)
            _xe_learn
            printf '%s\n' "${_xe_known//,/$'\n'}" | sed -n 's/-param-list$//p'
            ;;
        on) _xe_list host-list params=name-label ;;
        cd-name) _xe_list cd-list params=name-label ;;
        role-name) _xe_list role-list params=name ;;
        filename | file-name | passwordfile) compgen -f -- "$4" ;;
        *)
            class=$(_xe_class "$command" "$name")
            if [[ -n $class ]]; then
                _xe_list "$class-list"
                [[ $name == "$class" ]] && _xe_list "$class-list" params=name-label
            fi
            ;;
    esac
}

_xe() {
    local line=${COMP_LINE:0:COMP_POINT} current word command='' uuid='' position skip='' candidates head='' quoted
    local -a words _xe_where
    # A space with a backslash before it parts nothing.
    line=${line//\\ /$'\x01'}
    current=${line##* }
    current=${current//$'\x01'/\\ }
    read -ra words <<<"$line"
    _xe_connection "${words[@]:1}"
    for ((position = 1; position < ${#words[@]}; position++)); do
        word=${words[position]}
        if [[ $position -eq $((${#words[@]} - 1)) && -n $current ]]; then
            break
        elif [[ -n $skip ]]; then
            skip=''
        else
            case $word in
                -s | -h | -p | -u | -pw | -pwf) skip=1 ;;
                -* | server=* | port=* | username=* | password=* | passwordfile=*) ;;
                uuid=*) uuid=${word#uuid=} ;;
                *=*) ;;
                *) [[ -n $command ]] || command=$word ;;
            esac
        fi
    done
    if [[ -z $command || $command == help ]]; then
        _xe_learn
        candidates=${_xe_known//,/$'\n'}
    elif [[ $current == *=* ]]; then
        head=${current%%=*}=
        candidates=$(_xe_values "$command" "${current%%=*}" "$uuid" "${current#*=}" | sed "s|^|$head|")
    elif [[ $command == *-param-set ]]; then
        candidates=$(_xe_fields "$command" "$uuid" | sed 's/$/=/'; printf 'uuid=\n')
    else
        candidates=$(_xe_parameters "$command")
    fi
    COMPREPLY=()
    # What stands before the last `=` or `:` is a word of its own to bash, and is there already.
    head=${current%"${current##*[=:]}"}
    [[ $COMP_WORDBREAKS == *=* ]] || head=''
    while IFS= read -r word; do
        # Names are whatever somebody called something: the shell must not read anything into them.
        printf -v quoted %q "${word#"$head"}"
        if [[ -n $word && ($word == "$current"* || $head$quoted == "$current"*) ]]; then
            COMPREPLY+=("$quoted")
        fi
    done <<<"$candidates"
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=:] ]] && type compopt &>/dev/null; then
        compopt -o nospace 2>/dev/null
    fi
}

complete -F _xe xe
