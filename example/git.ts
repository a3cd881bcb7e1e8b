// Git over smart HTTP. Each request starts a git process. The request body is its stdin, and its stdout is the response. What
// git writes while it still reads is sent at once, so the negotiation of a large fetch cannot deadlock.
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

const repository = { type: 'string', pattern: '^[A-Za-z0-9_][A-Za-z0-9._-]*\\.git$' } // a plain name: no path, and no command-line option
const service = { type: 'string', enum: ['git-upload-pack', 'git-receive-pack'] }

type Service = 'git-upload-pack' | 'git-receive-pack'
interface AdvertisementRoute { Params: { repository: string }, Querystring: { service: Service } }
interface ServiceRoute { Params: { repository: string, service: Service } }

export interface GitOptions {
  /** The directory of the bare repositories. */
  root: string
  /** Whether clients may push. Add your own hooks to decide who may fetch and who may push. Default: false */
  push?: boolean
}

export async function git (app: FastifyInstance, { root, push = false }: GitOptions): Promise<void> {
  async function startGit (request: FastifyRequest, reply: FastifyReply, name: string, service: Service, ...options: string[]): Promise<ChildProcessWithoutNullStreams> {
    if (service === 'git-receive-pack' && !push) throw Object.assign(new Error('Read only'), { statusCode: 403 })
    const directory = join(root, name)
    await access(join(directory, 'HEAD')).catch(() => { throw Object.assign(new Error('No such repository'), { statusCode: 404 }) })
    const env = { ...process.env, GIT_PROTOCOL: String(request.headers['git-protocol'] ?? '') }
    const child = spawn('git', [service.slice('git-'.length), '--stateless-rpc', ...options, directory], { env })
    reply.duplex.once('close', () => child.kill()) // also when the client has gone away
    child.stderr.on('data', (text) => request.log.warn(String(text)))
    await once(child, 'spawn')
    reply.header('cache-control', 'no-cache')
    return child
  }

  app.get<AdvertisementRoute>('/:repository/info/refs', {
    duplex: true,
    schema: { params: { type: 'object', properties: { repository } }, querystring: { type: 'object', required: ['service'], properties: { service } } }
  }, async function * (request, reply) {
    const { params: { repository }, query: { service } } = request
    const { stdout } = await startGit(request, reply, repository, service, '--advertise-refs')
    reply.type(`application/x-${service}-advertisement`)
    const line = `# service=${service}\n`
    yield (line.length + 4).toString(16).padStart(4, '0') + line + '0000'
    yield * stdout
  })

  app.post<ServiceRoute>('/:repository/:service', {
    duplex: true,
    schema: { params: { type: 'object', properties: { repository, service } } }
  }, async function * (request, reply) {
    const { repository, service } = request.params
    const { stdin, stdout } = await startGit(request, reply, repository, service)
    reply.type(`application/x-${service}-result`)
    const decoded = request.headers['content-encoding'] === 'gzip' ? createGunzip() : new PassThrough()
    // Git may close its stdin before it has read everything. The pipeline then destroys its source. Because the source is a
    // generator and not the stream itself, the exchange stays open.
    pipeline(async function * () { yield * reply.duplex }, decoded, stdin).catch((error) => request.log.debug(error))
    yield * stdout
  })
}

async function main (): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), 'git-'))
  execFileSync('git', ['init', '--quiet', '--bare', join(root, 'example.git')])
  const address = await listen((app) => app.register(git, { root, push: true }))
  console.log(`Clone this empty repository, commit to it and push:

  git clone ${address}/example.git`)
}

if (require.main === module) main()
