// Attach and exec, as Docker has them: enough of its Engine API for the `docker` command. A session is a tunnel behind a 101. The
// stdin of a process comes up. Its stdout and stderr go down, in frames that tell them apart, or raw for a client that asks for a
// terminal (there is none here). `npm run example:exec`, and then `docker -H tcp://127.0.0.1:2375 exec -i web sh`
//
// An example and no sandbox: its one container is this machine. Whoever reaches the port can run any command with your rights.

import { type ChildProcess, spawn } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { constants } from 'node:os'
import { PassThrough, type Readable, type Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { listen } from './listen.ts'

interface ExecConfig { Cmd: string[], Env?: string[] | null, WorkingDir?: string, Tty?: boolean, AttachStdin?: boolean }
interface ById { Params: { id: string }, Querystring: { stdin?: string, follow?: string } }

const execSchema = { type: 'object', required: ['Cmd'], properties: { Cmd: { type: 'array', minItems: 1, items: { type: 'string' } } } }
const MULTIPLEXED = 'application/vnd.docker.multiplexed-stream'

/** @param options the name of the only container, and its main process */
export async function engine (app: FastifyInstance, { name, command }: { name: string, command: string[] }): Promise<void> {
  // All clients read the output of the main process from one list, each at its own pace. A real one would bound it.
  const main = spawn(command[0], command.slice(1))
  const output: Buffer[] = []
  const changes = new EventEmitter().setMaxListeners(0)
  const state = { Running: true, ExitCode: 0 }
  main.stdout.on('data', (chunk) => changes.emit('change', output.push(frame(1, chunk))))
  main.stderr.on('data', (chunk) => changes.emit('change', output.push(frame(2, chunk))))
  onExit(main, (exitCode) => changes.emit('change', Object.assign(state, { Running: false, ExitCode: exitCode })))
  app.addHook('preClose', async () => { main.kill() })

  const change = (signal: AbortSignal): Promise<unknown> => once(changes, 'change', { signal }).catch(() => {})
  async function * follow (position: number, signal: AbortSignal): AsyncGenerator<Buffer> {
    while (true) {
      while (position < output.length) yield output[position++]
      if (!state.Running || signal.aborted) return
      await change(signal)
    }
  }

  const id = createHash('sha256').update(name).digest('hex')
  async function containers (app: FastifyInstance): Promise<void> {
    app.addHook<ById>('onRequest', async ({ params }) => {
      if (params.id !== name && params.id !== id) throw failure(404, `No such container: ${params.id}`)
    })
    app.get('/json', async () => ({ Id: id, Name: `/${name}`, State: state, Config: { OpenStdin: true, Tty: false } }))
    app.post('/wait', { duplex: true }, async function * ({ signal }, reply) {
      reply.type('application/json').duplex.flushHeaders() // `docker attach` goes on when it has the head
      while (state.Running && !signal.aborted) await change(signal)
      yield JSON.stringify({ StatusCode: state.ExitCode })
    })
    app.get<ById>('/logs', { duplex: true }, async function * ({ query, signal }, reply) {
      reply.type(MULTIPLEXED)
      yield * query.follow === '1' ? follow(0, signal) : output
    })
    app.post<ById>('/attach', { duplex: true }, async (request, reply) => {
      await readOptions(request, reply, MULTIPLEXED)
      receive(reply, request.query.stdin === '1' ? main.stdin : null)
      return follow(output.length, request.signal)
    })
    app.post<{ Body: ExecConfig }>('/exec', { schema: { body: execSchema } }, async ({ body: config }, reply) => {
      const exec = { ID: randomUUID(), Running: false, ExitCode: null, config }
      execs.set(exec.ID, exec)
      return reply.code(201).send({ Id: exec.ID })
    })
  }

  const execs = new Map<string, { ID: string, Running: boolean, ExitCode: number | null, config: ExecConfig }>()
  async function sessions (app: FastifyInstance): Promise<void> {
    app.addHook<ById>('onRequest', async ({ params }) => {
      if (!execs.has(params.id)) throw failure(404, `No such exec instance: ${params.id}`)
    })
    app.get<ById>('/json', async ({ params }) => execs.get(params.id))
    app.post('/resize', async () => '')
    app.post<ById>('/start', { duplex: true }, async (request, reply) => {
      const { duplex } = reply
      const exec = execs.get(request.params.id)!
      const { Cmd: [file, ...args], Env, WorkingDir, Tty = false, AttachStdin = false } = exec.config
      const env = { ...process.env, ...Object.fromEntries((Env ?? []).map((variable) => variable.split(/=(.*)/s, 2))) }
      const child = spawn(file, args, { env, cwd: WorkingDir || undefined })
      const closed = new Promise<unknown>((resolve) => {
        onExit(child, (exitCode) => resolve(Object.assign(exec, { Running: false, ExitCode: exitCode })))
      })
      await once(child, 'spawn').catch(({ message }) => { throw failure(400, message) })
      exec.Running = true
      // Output that nobody reads is dropped by Node when a process ends. Until the options have come, it waits here.
      const [stdout, stderr] = [child.stdout, child.stderr].map((stream) => stream.pipe(new PassThrough()))
      const kill = (): unknown => child.kill()
      for (const event of ['close', 'shutdown']) duplex.once(event, kill) // the client leaves, or the app closes

      const { Detach } = await readOptions(request, reply, Tty ? 'application/vnd.docker.raw-stream' : MULTIPLEXED)
      if (!AttachStdin) child.stdin.end()
      if (Detach) {
        duplex.off('close', kill)
        for (const stream of [stdout, stderr]) stream.resume()
        return reply.code(200).send()
      }
      receive(reply, AttachStdin ? child.stdin : null)
      const send = (type: number, source: Readable): Promise<void> => pipeline(source, async function * (chunks: Readable) {
        for await (const chunk of chunks) yield Tty ? chunk : frame(type, chunk)
      }, duplex, { end: false })
      await Promise.all([closed, send(1, stdout), send(2, stderr)])
      duplex.end() // docker then asks for the exit code
    })
  }

  async function api (app: FastifyInstance): Promise<void> {
    // Docker looks for exactly this content-type, without a charset.
    app.setErrorHandler<FastifyError>(({ statusCode = 500, message }, request, reply) => {
      return reply.code(statusCode).type('application/json').send(Buffer.from(JSON.stringify({ message })))
    })
    const version = { Version: '0.1.0', ApiVersion: '1.44', MinAPIVersion: '1.24', Os: 'linux', Arch: process.arch }
    app.get('/_ping', async (request, reply) => reply.header('api-version', version.ApiVersion).send('OK'))
    app.get('/version', async () => version)
    await app.register(containers, { prefix: '/containers/:id' })
    await app.register(sessions, { prefix: '/exec/:id' })
  }
  await app.register(api)
  await app.register(api, { prefix: '/v:version' })
}

/** Switches protocols if the client offers it. Reads the options in the body of the request, and nothing of the tunnel behind it. */
async function readOptions ({ headers }: FastifyRequest, reply: FastifyReply, type: string): Promise<{ Detach?: boolean }> {
  const { duplex } = reply.type(type)
  if (headers.upgrade === 'tcp') reply.code(101).header('upgrade', 'tcp')
  const chunks: Buffer[] = []
  for (let rest = Number(headers['content-length'] ?? 0); rest > 0;) {
    const chunk: Buffer | null = duplex.read(Math.min(rest, duplex.readableLength) || undefined)
    if (chunk === null) await once(duplex, 'readable')
    else rest -= chunks[chunks.push(chunk) - 1].length
  }
  return chunks.length === 0 ? {} : JSON.parse(Buffer.concat(chunks).toString())
}

/** Passes on what the client sends in the tunnel. The head goes first: Docker's client waits for it. */
function receive ({ duplex, log }: FastifyReply, stdin: Writable | null): void {
  if (!duplex.headersSent) duplex.flushHeaders()
  if (stdin === null) duplex.resume()
  // A process may end before it has read everything. Because the source is a generator, the exchange stays open then.
  else pipeline(async function * () { yield * duplex }, stdin).catch((error) => log.debug(error))
}

/** The type of the stream (1: stdout, 2: stderr) and the length in 8 bytes, and then the content. */
function frame (type: number, content: Buffer): Buffer {
  const head = Buffer.from([type, 0, 0, 0, 0, 0, 0, 0])
  head.writeUInt32BE(content.length, 4)
  return Buffer.concat([head, content])
}

function onExit (child: ChildProcess, listener: (exitCode: number) => void): void {
  child.once('close', (code, signal) => listener(code ?? 128 + constants.signals[signal!]))
}

function failure (statusCode: number, message: string): Error {
  return Object.assign(new Error(message), { statusCode })
}

async function main (): Promise<void> {
  await listen((app) => app.register(engine, { name: 'web', command: ['sh', '-c', 'while sleep 1; do date; done'] }), { port: 2375 })
}

if (require.main === module) main()
