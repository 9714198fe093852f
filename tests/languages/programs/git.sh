set -eu
exec 2>&1
git config --global user.name n; git config --global user.email n@example.org
git config --global init.defaultBranch main; git config --global core.fsync all
git init -q r; cd r
echo 1 >a; git add a; git commit -qm first
git checkout -qb side; echo 2 >b; git add b; git commit -qm side
git checkout -q main; echo 3 >>a; git commit -qam second
git merge -q --no-edit side; git log --format=%s | sort; git branch | tr -d '* '
git gc -q; git fsck --strict; git clone -q --local . ../c; git -C ../c log --oneline | wc -l
echo x >>a; git stash -q; git stash pop -q; git diff --shortstat
git archive HEAD | tar t; git worktree add -q ../w side; git -C ../w rebase -q main; cat ../w/a ../w/b
