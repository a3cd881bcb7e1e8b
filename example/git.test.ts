import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import { git as gitRoutes } from './git.ts'

function isInstalled (): boolean {
  try {
    execFileSync('git', ['--version'])
    return true
  } catch {
    return false
  }
}

test('git over smart HTTP', { skip: isInstalled() ? false : 'git is not installed' }, async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'git-'))
  const app = Fastify({ forceCloseConnections: true })
  t.after(async () => {
    await app.close()
    await rm(directory, { recursive: true })
  })
  await app.register(duplex)
  await app.register(gitRoutes, { root: directory, push: true })
  await app.register(gitRoutes, { root: directory, prefix: '/public' })
  const address = await app.listen({ port: 0, host: '127.0.0.1' })

  // No settings of the machine or of its user.
  const env = { PATH: process.env.PATH, HOME: directory, GIT_CONFIG_NOSYSTEM: '1', GIT_TERMINAL_PROMPT: '0' }
  const git = async (...args: string[]): Promise<string> => {
    const identity = ['-c', 'user.name=a', '-c', 'user.email=a@example.com']
    return (await promisify(execFile)('git', [...identity, ...args], { env, cwd: directory })).stdout
  }
  await git('init', '--quiet', '--bare', 'a.git')

  await t.test('push and clone a small file, and one larger than git keeps in memory', async () => {
    await git('clone', '--quiet', `${address}/a.git`, 'work')
    for (const size of [100, 3 * 1024 * 1024]) {
      const content = randomBytes(size)
      await writeFile(join(directory, 'work/file'), content)
      await git('-C', 'work', 'add', 'file')
      await git('-C', 'work', 'commit', '--quiet', '--message', String(size))
      await git('-C', 'work', 'push', '--quiet', 'origin', 'HEAD:refs/heads/main')
      await git('clone', '--quiet', '--branch', 'main', `${address}/public/a.git`, `copy-${size}`)
      assert.deepEqual(await readFile(join(directory, `copy-${size}/file`)), content)
    }
  })

  await t.test('fetch with a history to negotiate, in a request that git compresses, in every protocol version', async () => {
    for (let i = 0; i < 100; i++) await git('-C', 'copy-100', 'commit', '--quiet', '--allow-empty', '--message', `local ${i}`)
    for (const version of ['0', '1', '2']) {
      await git('-C', 'work', 'commit', '--quiet', '--allow-empty', '--message', version)
      await git('-C', 'work', 'push', '--quiet', 'origin', 'HEAD:refs/heads/main')
      await git('-C', 'copy-100', '-c', `protocol.version=${version}`, 'fetch', '--quiet')
      assert.equal(await git('-C', 'copy-100', 'rev-parse', 'origin/main'), await git('-C', 'work', 'rev-parse', 'HEAD'))
    }
  })

  await t.test('says why it refuses', async () => {
    await assert.rejects(git('-C', 'work', 'push', `${address}/public/a.git`, 'HEAD:refs/heads/other'), /403/)
    await assert.rejects(git('clone', `${address}/b.git`, 'b'), /not found/)
  })

  await t.test('sends the complete answer when git stops reading the request', async () => {
    // Git refuses the first line, while a megabyte is still being sent.
    const request = '0032want ' + '0'.repeat(40) + '\n00000009done\n' + 'x'.repeat(1024 * 1024)
    const client = await app.injectDuplex({ method: 'POST', url: '/a.git/git-upload-pack', payload: request })
    assert.equal((await client.response).statusCode, 200)
    let answer = ''
    for await (const chunk of client) answer += chunk
    assert.match(answer, /not our ref/)
  })

  await t.test('accepts no path as a repository name', async () => {
    for (const name of ['..', '.git', '..%2Fa.git', '%2Fa.git', 'a.git%2F..%2Fa.git', '--help.git', 'a.git%00.git', 'a']) {
      const { statusCode } = await app.inject(`/${name}/info/refs?service=git-upload-pack`)
      assert.ok(statusCode === 400 || statusCode === 404, `${name}: ${statusCode}`)
    }
    assert.equal((await app.inject('/a.git/info/refs?service=git-daemon')).statusCode, 400)
  })
})
