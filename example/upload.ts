// An upload with live progress. While it runs, the response reports how many bytes have arrived. At the end it reports the
// SHA-256. By then the status has been sent, so the last line says whether the upload is complete, and not the status.
// `npm run example:upload`

import { createHash, randomUUID } from 'node:crypto'
import { mkdtemp, open, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { listen } from './listen.ts'

/** Bytes between two progress reports. */
const PROGRESS_STEP = 1024 * 1024
const params = {
  type: 'object',
  properties: { name: { type: 'string', pattern: '^[A-Za-z0-9_][A-Za-z0-9._-]*$' } } // no path, no hidden file
} as const

export interface UploadOptions { directory: string, bodyLimit?: number }

export async function upload (app: FastifyInstance, { directory, bodyLimit = 1024 ** 3 }: UploadOptions): Promise<void> {
  app.put<{ Params: { name: string } }>('/files/:name', { duplex: { bodyLimit }, schema: { params } }, async function * (request, reply) {
    reply.type('application/x-ndjson')
    const path = join(directory, request.params.name)
    const temporaryPath = `${path}.${randomUUID()}.part`
    const hash = createHash('sha256')
    const file = await open(temporaryPath, 'wx')
    try {
      let received = 0
      let reported = 0
      for await (const chunk of reply.duplex) {
        await file.appendFile(chunk)
        hash.update(chunk)
        received += chunk.length
        // Report rarely: some clients read nothing before they have sent everything, and a long response would block them.
        if (received - reported >= PROGRESS_STEP) {
          reported = received
          yield JSON.stringify({ received }) + '\n'
        }
      }
      await rename(temporaryPath, path)
      yield JSON.stringify({ received, sha256: hash.digest('hex') }) + '\n'
    } finally {
      await file.close()
      await rm(temporaryPath, { force: true })
    }
  })
}

async function main (): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'upload-'))
  const address = await listen((app) => app.register(upload, { directory }))
  console.log(`Files are written to ${directory}. This uploads 10 MB in four seconds:

  head -c 10M /dev/urandom | curl -sN --limit-rate 2500K -T - ${address}/files/random`)
}

if (require.main === module) main()
