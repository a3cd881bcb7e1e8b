// Git over smart HTTP: git's own processes, with both ends of the exchange as their stdin and stdout. What git says while
// it still reads goes out at once, so that the negotiation of a large fetch cannot lock up.
// `npm run example:git`

import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { listen } from './listen.ts'

const repository = { type: 'string', pattern: '^[A-Za-z0-9_][A-Za-z0-9._-]*\\.git$' } // one name: no path, no option
const service = { type: 'string', enum: ['git-upload-pack', 'git-receive-pack'] }

type Service = 'git-upload-pack' | 'git-receive-pack'
interface Advertisement { Params: { repository: string }, Querystring: { service: Service } }
interface Call { Params: { repository: string, service: Service } }

/** `root` is the directory of bare repositories. Who may fetch, and who may push if anybody, is for hooks of yours. */
export interface GitOptions { root: string, push?: boolean }

export async function git (app: FastifyInstance, { root, push = false }: GitOptions): Promise<void> {
  async function start (request: FastifyRequest, reply: FastifyReply, name: string, service: Service, ...options: string[]): Promise<ChildProcessWithoutNullStreams> {
    if (service === 'git-receive-pack' && !push) throw Object.assign(new Error('Read only'), { statusCode: 403 })
    const directory = join(root, name)
    await access(join(directory, 'HEAD')).catch(() => { throw Object.assign(new Error('No such repository'), { statusCode: 404 }) })
    const env = { ...process.env, GIT_PROTOCOL: String(request.headers['git-protocol'] ?? '') }
    const child = spawn('git', [service.slice('git-'.length), '--stateless-rpc', ...options, directory], { env })
    reply.duplex.once('close', () => child.kill()) // the client has left
    child.stderr.on('data', (text) => request.log.warn(String(text)))
    await once(child, 'spawn')
    reply.header('cache-control', 'no-cache')
    return child
  }

  app.get<Advertisement>('/:repository/info/refs', {
    duplex: true,
    schema: { params: { type: 'object', properties: { repository } }, querystring: { type: 'object', required: ['service'], properties: { service } } }
  }, async function * (request, reply) {
    const { params: { repository }, query: { service } } = request
    const { stdout } = await start(request, reply, repository, service, '--advertise-refs')
    reply.type(`application/x-${service}-advertisement`)
    const line = `# service=${service}\n`
    yield (line.length + 4).toString(16).padStart(4, '0') + line + '0000'
    yield * stdout
  })

  app.post<Call>('/:repository/:service', {
    duplex: true,
    schema: { params: { type: 'object', properties: { repository, service } } }
  }, async function * (request, reply) {
    const { repository, service } = request.params
    const { stdin, stdout } = await start(request, reply, repository, service)
    reply.type(`application/x-${service}-result`)
    const decoded = request.headers['content-encoding'] === 'gzip' ? createGunzip() : new PassThrough()
    // Read by iteration, which leaves the exchange open when git has heard enough and closes its stdin.
    pipeline(async function * () { yield * reply.duplex }, decoded, stdin).catch((error) => request.log.debug(error))
    yield * stdout
  })
}

async function main (): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), 'git-'))
  execFileSync('git', ['init', '--quiet', '--bare', join(root, 'example.git')])
  const address = await listen((app) => app.register(git, { root, push: true }))
  console.log(`An empty repository to clone, commit to and push:

  git clone ${address}/example.git`)
}

if (require.main === module) main()
