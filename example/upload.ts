// An upload with live progress: the bytes received so far are told while the upload runs, the digest at its end. The
// response has begun by then, so that its last line, not its status, says whether the upload is complete.
// `npm run example:upload`

import { createHash, randomUUID } from 'node:crypto'
import { mkdtemp, open, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { listen } from './listen.ts'

const STEP = 1024 * 1024
const params = {
  type: 'object',
  properties: { name: { type: 'string', pattern: '^[A-Za-z0-9_][A-Za-z0-9._-]*$' } } // no path, no hidden file
} as const

export interface UploadOptions { directory: string, bodyLimit?: number }

export async function upload (app: FastifyInstance, { directory, bodyLimit = 1024 ** 3 }: UploadOptions): Promise<void> {
  app.put<{ Params: { name: string } }>('/files/:name', { duplex: { bodyLimit }, schema: { params } }, async function * (request, reply) {
    reply.type('application/x-ndjson')
    const path = join(directory, request.params.name)
    const unfinished = `${path}.${randomUUID()}.part`
    const hash = createHash('sha256')
    const file = await open(unfinished, 'wx')
    try {
      let received = 0
      let told = 0
      for await (const piece of reply.duplex) {
        await file.appendFile(piece)
        hash.update(piece)
        received += piece.length
        // Seldom: a client that reads no response before it has sent all must not be held up by it.
        if (received - told >= STEP) {
          told = received
          yield JSON.stringify({ received }) + '\n'
        }
      }
      await rename(unfinished, path)
      yield JSON.stringify({ received, sha256: hash.digest('hex') }) + '\n'
    } finally {
      await file.close()
      await rm(unfinished, { force: true })
    }
  })
}

async function main (): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'upload-'))
  const address = await listen((app) => app.register(upload, { directory }))
  console.log(`Files go to ${directory}. Ten MB in four seconds:

  head -c 10M /dev/urandom | curl -sN --limit-rate 2500K -T - ${address}/files/random`)
}

if (require.main === module) main()
