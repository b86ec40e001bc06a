# bash completion for doppel
_doppel() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd=${COMP_WORDS[1]}
	if [ "$COMP_CWORD" = 1 ]; then
		COMPREPLY=($(compgen -W "run ps console stop pause resume stats doctor help version" -- "$cur"))
		return
	fi
	case $prev in
	--engine|-e) COMPREPLY=($(compgen -W "auto kvm interp" -- "$cur")); return ;;
	--kernel|-k|--initrd|-i|--disk|-d) COMPREPLY=($(compgen -f -- "$cur")); return ;;
	esac
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "--help $(doppel "$cmd" --help 2>/dev/null | grep -o -- '--[a-z-]*')" -- "$cur"))
		return
	fi
	case $cmd in
	console|stop|pause|resume|stats)
		COMPREPLY=($(compgen -W "$(doppel ps 2>/dev/null | awk 'NR > 1 { print $1 }')" -- "$cur")) ;;
	esac
}
complete -F _doppel doppel
